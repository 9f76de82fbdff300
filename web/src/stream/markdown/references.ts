/** What stands behind and inside the brackets of links: destinations, titles, labels, definitions. */
import { unescape } from './entities.ts'
import { matchAt } from './scan.ts'

export interface Target {
  readonly href: string
  readonly title: string
}

/** By label, as `labelOf` makes it; footnotes are known by their label with a `^` before it. */
export type Definitions = ReadonlyMap<string, Target>

/** The text ended in the middle of it. */
export type Cut = 'cut'

/** Labels are compared without regard to case and to the amount of white space. */
export function labelOf(written: string): string {
  return written.trim().replace(/\s+/g, ' ').toLowerCase().toUpperCase()
}

const GAP = /[ \t]*(?:\n[ \t]*)?/y
const POINTED = /<((?:[^<>\n\\]|\\.)*)>/y
const POINTED_BEGUN = /<(?:[^<>\n\\]|\\.)*\\?$/y
const BARE = /[^ \p{Cc}]*/uy
const TITLE = /"((?:[^"\\]|\\[^])*)"|'((?:[^'\\]|\\[^])*)'|\(((?:[^()\\]|\\[^])*)\)/y
const TITLE_BEGUN = /(?:"(?:[^"\\]|\\[^])*|'(?:[^'\\]|\\[^])*|\((?:[^()\\]|\\[^])*)\\?$/y
const LABEL = /\[((?:[^[\]\\]|\\[^]){0,999})\]/y

interface Piece {
  readonly text: string
  readonly end: number
}

/** `(destination "title")` at `position`. */
export function inlineTarget(
  text: string,
  position: number,
): (Target & { readonly end: number }) | Cut | null {
  const from = skipGap(text, position + 1)
  if (text[from] === ')') return { href: '', title: '', end: from + 1 }
  const destination = destinationAt(text, from, true)
  if (destination === null || destination === 'cut') return destination
  const gap = skipGap(text, destination.end)
  const title = gap > destination.end ? titleAt(text, gap) : null
  if (title === 'cut') return 'cut'
  const end = skipGap(text, title?.end ?? gap)
  if (end >= text.length) return 'cut'
  if (text[end] !== ')') return null
  return { href: destination.text, title: title?.text ?? '', end: end + 1 }
}

/** `[label]` at `position`. */
export function labelAt(text: string, position: number): Piece | null {
  const match = matchAt(LABEL, text, position)
  return match && { text: match[1] ?? '', end: LABEL.lastIndex }
}

/** `[label]: destination "title"` at the beginning of a text, up to the end of a line. */
export function definitionAt(
  text: string,
  position: number,
): { readonly label: string; readonly target: Target; readonly end: number } | null {
  const label = labelAt(text, position)
  if (label === null || text[label.end] !== ':' || label.text.trim() === '') return null
  const destination = destinationAt(text, skipGap(text, label.end + 1), false)
  if (destination === null || destination === 'cut') return null
  const bare = endOfLine(text, destination.end)
  const gap = skipGap(text, destination.end)
  const title = gap > destination.end ? titleAt(text, gap) : null
  const titled = title === null || title === 'cut' ? null : endOfLine(text, title.end)
  const end = titled ?? bare
  if (end === null) return null
  const written = titled === null || title === null || title === 'cut' ? '' : title.text
  return {
    label: labelOf(label.text),
    target: { href: destination.text, title: written },
    end,
  }
}

function endOfLine(text: string, position: number): number | null {
  const match = matchAt(/[ \t]*(?:\n|$)/y, text, position)
  return match && position + match[0].length
}

function skipGap(text: string, position: number): number {
  return position + (matchAt(GAP, text, position)?.[0].length ?? 0)
}

function destinationAt(
  text: string,
  position: number,
  isInParentheses: boolean,
): Piece | Cut | null {
  if (text[position] === '<') {
    const pointed = matchAt(POINTED, text, position)
    if (pointed) return { text: unescape(pointed[1] ?? ''), end: POINTED.lastIndex }
    return matchAt(POINTED_BEGUN, text, position) ? 'cut' : null
  }
  const length = matchAt(BARE, text, position)?.[0].length ?? 0
  const end = balanced(text, position, position + length)
  if (isInParentheses && end === text.length) return 'cut'
  if (end === null || end === position) return null
  return { text: unescape(text.slice(position, end)), end }
}

/** Where the parenthesis closes that was opened before `from`, or `to`. `null` where one inside stays open. */
function balanced(text: string, from: number, to: number): number | null {
  let depth = 0
  for (let at = from; at < to; at += 1) {
    const character = text[at]
    if (character === '\\') at += 1
    else if (character === '(') depth += 1
    else if (character === ')') depth -= 1
    if (depth < 0) return at
  }
  return depth === 0 || to === text.length ? to : null
}

function titleAt(text: string, position: number): Piece | Cut | null {
  const match = matchAt(TITLE, text, position)
  if (match) {
    const written = match[1] ?? match[2] ?? match[3] ?? ''
    return { text: unescape(written), end: TITLE.lastIndex }
  }
  return matchAt(TITLE_BEGUN, text, position) ? 'cut' : null
}
