/** The list of chats as lines of known height, so that only those near the view need to be drawn. */
import type { Chat } from '../stream/wire.ts'
import { spansAt, type Span } from './spans.ts'

/** Heights in rem. */
export const CHAT_HEIGHT = 2.5
export const SPAN_HEIGHT = 2.25

/** `top` in rem. */
export type Line =
  | { readonly key: string; readonly top: number; readonly span: Span }
  | { readonly key: string; readonly top: number; readonly chat: Chat }

export interface Lines {
  readonly lines: readonly Line[]
  readonly height: number
}

/** The chats in their order, each span of time with a heading. */
export function linesOf(chats: readonly Chat[], now: Date): Lines {
  const lines: Line[] = []
  const spanOf = spansAt(now)
  let height = 0
  let before: Span | null = null
  for (const chat of chats) {
    const span = spanOf(chat.updated_at)
    if (span !== before) {
      lines.push({ key: span, top: height, span })
      height += SPAN_HEIGHT
      before = span
    }
    lines.push({ key: chat.id, top: height, chat })
    height += CHAT_HEIGHT
  }
  return { lines, height }
}

/** The lines between two heights, and those with the keys `keep` wherever they are. */
export function near(
  { lines }: Lines,
  from: number,
  to: number,
  keep: readonly string[] = [],
): readonly Line[] {
  const first = firstFrom(lines, from - Math.max(CHAT_HEIGHT, SPAN_HEIGHT))
  const last = firstFrom(lines, to)
  const isKept = ({ key }: Line): boolean => keep.includes(key)
  if (keep.length === 0) return lines.slice(first, last)
  return [
    ...lines.slice(0, first).filter(isKept),
    ...lines.slice(first, last),
    ...lines.slice(last).filter(isKept),
  ]
}

/** The index of the first line that begins at `top` or below it. */
function firstFrom(lines: readonly Line[], top: number): number {
  let low = 0
  let high = lines.length
  while (low < high) {
    const middle = (low + high) >> 1
    if ((lines[middle]?.top ?? Infinity) < top) low = middle + 1
    else high = middle
  }
  return low
}
