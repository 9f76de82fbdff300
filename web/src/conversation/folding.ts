/** From here on a question takes so much room that folding it shows more of what it is about. */
const LONG_LINES = 20
const LONG_CHARS = 1_600

export function isLong(text: string): boolean {
  if (text.length > LONG_CHARS) return true
  let lines = 1
  for (let at = text.indexOf('\n'); at >= 0; at = text.indexOf('\n', at + 1)) lines += 1
  return lines > LONG_LINES
}
