/** How blocks begin: what the rest of a line opens, if anything but a paragraph. */
import { unescape } from './entities.ts'
import type { Cursor } from './line.ts'

export interface Marker {
  /** Items of one list share it: the bullet, or what follows the number. */
  readonly kind: string
  readonly start: number | null
}

export interface Fence {
  readonly mark: string
  readonly length: number
  /** Columns that the fence is indented by, and by which its lines may be. */
  readonly indent: number
  readonly language: string
}

export type MathFence = '$$' | '\\]'

export type Start =
  | { readonly type: 'quote' }
  | { readonly type: 'item'; readonly marker: Marker; readonly width: number }
  | { readonly type: 'footnote'; readonly label: string; readonly width: number }
  | { readonly type: 'heading'; readonly level: number; readonly text: string }
  | { readonly type: 'underline'; readonly level: number }
  | { readonly type: 'fence'; readonly fence: Fence }
  | { readonly type: 'math'; readonly closer: MathFence; readonly text: string }
  | { readonly type: 'rule' }
  | { readonly type: 'indented' }

export interface Situation {
  /** A paragraph is open right here: not all may interrupt it, and a line below it may make it a heading. */
  readonly isInParagraph: boolean
  /** The line may go on a paragraph, if not right here then by laziness: no indented code can begin. */
  readonly canContinue: boolean
  /** Whether a formula may begin. */
  readonly allowsMath: boolean
  /** Whether a quote, an item or a footnote may begin. */
  readonly allowsContainers: boolean
}

/** Deeper indentation makes code. */
export const CODE_INDENT = 4

const HEADING = /^(#{1,6})(?:[ \t]+(.*?))??(?:[ \t]+#+)?[ \t]*$/
const UNDERLINE = /^(?:=+|-+)[ \t]*$/
const RULE = /^(?:(?:\*[ \t]*){3,}|(?:-[ \t]*){3,}|(?:_[ \t]*){3,})$/
const FENCE = /^(?:(`{3,})([^`]*)|(~{3,})(.*))$/
const ITEM = /^(?:([-+*])|(\d{1,9})([.)]))(?=[ \t]|$)/
const FOOTNOTE = /^\[\^([^\s[\]^]{1,99})\]:/

export function startOf(cursor: Cursor, situation: Situation): Start | null {
  if (cursor.isBlank) return null
  if (cursor.indent >= CODE_INDENT) return situation.canContinue ? null : { type: 'indented' }
  const text = cursor.content
  const { allowsContainers } = situation
  if (text[0] === '>' && allowsContainers) return { type: 'quote' }
  return (
    headingOf(text) ??
    fenceOf(text, cursor.indent) ??
    (situation.allowsMath ? mathOf(text) : null) ??
    (situation.isInParagraph ? underlineOf(text) : null) ??
    (RULE.test(text) ? { type: 'rule' } : null) ??
    (allowsContainers ? (itemOf(text, situation.isInParagraph) ?? footnoteOf(text)) : null)
  )
}

function headingOf(text: string): Start | null {
  const match = text[0] === '#' ? HEADING.exec(text) : null
  return match && { type: 'heading', level: match[1]?.length ?? 1, text: match[2] ?? '' }
}

function fenceOf(text: string, indent: number): Start | null {
  const match = text[0] === '`' || text[0] === '~' ? FENCE.exec(text) : null
  if (match === null) return null
  const run = match[1] ?? match[3] ?? ''
  const [language = ''] = (match[2] ?? match[4] ?? '').trim().split(/\s/)
  const fence = { mark: run.slice(0, 1), length: run.length, indent, language: unescape(language) }
  return { type: 'fence', fence }
}

/** A line that begins a formula of its own, unless the formula ends in it and text follows. */
function mathOf(text: string): Start | null {
  const closer = text.startsWith('$$') ? '$$' : text.startsWith('\\[') ? '\\]' : null
  if (closer === null) return null
  const rest = text.slice(2)
  const end = closingMath(rest, closer)
  if (end !== null && rest.slice(end + 2).trim() !== '') return null
  return end === 0 ? null : { type: 'math', closer, text: rest }
}

/** Where in a line a formula ends. */
export function closingMath(text: string, closer: MathFence): number | null {
  for (let at = 0; at < text.length; at += 1) {
    if (text.startsWith(closer, at)) return at
    if (text[at] === '\\') at += 1
  }
  return null
}

function underlineOf(text: string): Start | null {
  return UNDERLINE.test(text) ? { type: 'underline', level: text[0] === '=' ? 1 : 2 } : null
}

function itemOf(text: string, isInParagraph: boolean): Start | null {
  const match = ITEM.exec(text)
  if (match === null) return null
  const [written, bullet, number, delimiter] = match
  const isEmpty = text.slice(written.length).trim() === ''
  if (isInParagraph && (isEmpty || Number(number ?? 1) !== 1)) return null
  const start = number === undefined ? null : Number(number)
  const marker = { kind: bullet ?? delimiter ?? '', start }
  return { type: 'item', marker, width: written.length }
}

function footnoteOf(text: string): Start | null {
  const match = FOOTNOTE.exec(text)
  return match && { type: 'footnote', label: match[1] ?? '', width: match[0].length }
}
