/** Put a text where Paste finds it. Over plain HTTP there is no clipboard but that of a selection. */
export async function toClipboard(text: string): Promise<void> {
  if ('clipboard' in navigator) return navigator.clipboard.writeText(text)
  const area = document.createElement('textarea')
  area.value = text
  area.readOnly = true
  area.className = 'unseen'
  // What is copied is what is drawn: otherwise tabs and runs of blanks would become one blank.
  area.style.whiteSpace = 'pre'
  document.body.append(area)
  area.select()
  document.execCommand('copy')
  area.remove()
}
