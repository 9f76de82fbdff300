/** Copying, with what a button says of it for a moment. */

const SAID_MS = 1_500

export type Said = 'copied' | 'refused' | 'refusedHere' | null

export class Copying {
  said = $state.raw<Said>(null)
  #timer: ReturnType<typeof setTimeout> | undefined

  async copy(text: string): Promise<void> {
    const refused = isSecureContext ? 'refused' : 'refusedHere'
    this.said = (await toClipboard(text)) ? 'copied' : refused
    clearTimeout(this.#timer)
    this.#timer = setTimeout(() => (this.said = null), SAID_MS)
  }

  destroy(): void {
    clearTimeout(this.#timer)
  }
}

/** Returns whether the browser has let us. */
export async function toClipboard(text: string): Promise<boolean> {
  // Over plain HTTP there is no clipboard but that of a selection.
  if (!('clipboard' in navigator)) return bySelection(text)
  try {
    await navigator.clipboard.writeText(text)
    return true
  } catch {
    // Some frames and policies forbid the one and allow the other.
    return bySelection(text)
  }
}

function bySelection(text: string): boolean {
  const focused = document.activeElement
  const area = document.createElement('textarea')
  area.value = text
  area.readOnly = true
  area.className = 'unseen'
  // What is copied is what is drawn: otherwise tabs and runs of blanks would become one blank.
  area.style.whiteSpace = 'pre'
  document.body.append(area)
  area.select()
  const isCopied = document.execCommand('copy')
  area.remove()
  if (focused instanceof HTMLElement) focused.focus()
  return isCopied
}
