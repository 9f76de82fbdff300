/** How much of what nobody has seen yet is drawn at once. The rest of a long conversation waits until it comes near. */

/** In UTF-16 units: a few pages, and some ten milliseconds. */
const AT_ONCE = 24_000
const LINE_UNITS = 80
const LINE_PX = 29

let drawn = 0

/** Whether a text so long is to be drawn now. */
export function isDrawnAtOnce(length: number): boolean {
  if (!('ContentVisibilityAutoStateChangeEvent' in globalThis)) return true
  if (drawn === 0) setTimeout(() => (drawn = 0))
  drawn += length
  return drawn <= AT_ONCE
}

/** About how high a text will be, in pixels. */
export function likelyHeight(text: string): number {
  return (
    text.split('\n').reduce((sum, line) => sum + Math.ceil(line.length / LINE_UNITS), 1) * LINE_PX
  )
}
