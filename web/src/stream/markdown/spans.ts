/** The inline syntax that begins with a character of its own and needs nothing but the text to be recognized. */
import { characterAt, isEscapable } from './characters.ts'
import { REACH, runOf, TRUST, type Token } from './emphasis.ts'
import { decodeEntity, ENTITY, ENTITY_BEGUN } from './entities.ts'
import { matchAt } from './scan.ts'
import type { Link } from './tree.ts'
import { BARE_URL, lengthOfUrl } from './urls.ts'

export interface Found {
  /** `null`: to be kept back. */
  readonly token: Token | null
  readonly length: number
  /** What it is depends on text that has not arrived; so it is shown until then. */
  readonly isCut: boolean
}

/**
 * What stands at a position of a text that is `isWhole` or may go on. `before` is the character before it, or
 * nothing. `null`: nothing of the kind. In a whole text nothing is cut.
 */
export type Span = (
  text: string,
  position: number,
  before: string,
  isWhole: boolean,
) => Found | null

const whole = (token: Token, length: number): Found => ({ token, length, isCut: false })
const cut = (token: Token | null, length: number): Found => ({ token, length, isCut: true })

const BACKTICKS = /`+/y

const code: Span = (text, position, _before, isWhole) => {
  const length = matchAt(BACKTICKS, text, position)?.[0].length ?? 0
  const from = position + length
  const to = closingBackticks(text, from, length)
  if (to !== null) {
    const content = text.slice(from, to).replaceAll('\n', ' ')
    const isPadded = /^ .* $/s.test(content) && content.trim() !== ''
    const shown = isPadded ? content.slice(1, -1) : content
    return whole({ type: 'code', text: shown }, to + length - position)
  }
  const rest = text.slice(from)
  if (isWhole || rest.length > REACH) return null
  if (rest.length > TRUST) return cut('`'.repeat(length), length)
  const shown = rest.replace(/`+$/, '').trimStart()
  return cut(shown === '' ? null : { type: 'code', text: shown }, length + rest.length)
}

function closingBackticks(text: string, from: number, length: number): number | null {
  let at = text.indexOf('`', from)
  while (at >= 0 && at - from <= REACH) {
    const found = matchAt(BACKTICKS, text, at)?.[0].length ?? 1
    if (found === length) return at
    at = text.indexOf('`', at + found)
  }
  return null
}

const HARD_BREAK = /\\\n[ \t]*/y

const escape: Span = (text, position, _before, isWhole) => {
  const next = text[position + 1]
  if (next === undefined) return isWhole ? null : cut(null, 1)
  if (next === '(') return math(text, position, INLINE, isWhole) ?? whole(next, 2)
  if (next === '[') return math(text, position, DISPLAY, isWhole) ?? whole(next, 2)
  const hardBreak = matchAt(HARD_BREAK, text, position)
  if (hardBreak) return whole({ type: 'break' }, hardBreak[0].length)
  return isEscapable(next) ? whole(next, 2) : null
}

/** Nobody writes longer formulas into a line, and a lone `$` must not make all that follows wait for a second one. */
const LONGEST_MATH = 1_000

const INLINE: Fence = { closer: '\\)', isDisplay: false }
const DISPLAY: Fence = { closer: '\\]', isDisplay: true }
const DOLLAR: Fence = { closer: '$', isDisplay: false }
const DOLLARS: Fence = { closer: '$$', isDisplay: true }

interface Fence {
  readonly closer: string
  readonly isDisplay: boolean
}

const dollar: Span = (text, position, _before, isWhole) => {
  if (text.startsWith('$$', position)) return math(text, position, DOLLARS, isWhole)
  const next = text[position + 1]
  if (next === undefined) return isWhole ? null : cut(null, 1)
  return /\s/.test(next) ? null : math(text, position, DOLLAR, isWhole)
}

function math(text: string, position: number, fence: Fence, isWhole: boolean): Found | null {
  const { closer, isDisplay } = fence
  const from = position + closer.length
  const to = closingMath(text, from, closer)
  if (to === null) return isWhole ? null : openMath(text, position, fence)
  const tex = text.slice(from, to).trim()
  if (tex === '' || (closer === '$' && !isClosedByDollar(text, to))) return null
  const end = to + closer.length
  const isCut = closer === '$' && end === text.length && !isWhole
  return { token: { type: 'math', tex, isDisplay, isOpen: false }, length: end - position, isCut }
}

function openMath(text: string, position: number, { closer, isDisplay }: Fence): Found | null {
  const from = position + closer.length
  const tex = text.slice(from)
  if (tex.length > LONGEST_MATH) return null
  const opener = text.slice(position, from)
  const isUnlikely = tex.length > TRUST || (closer === '$' && !looksLikeMath(tex))
  if (isUnlikely) return cut(opener, opener.length)
  const begun = { type: 'math', tex: tex.trim(), isDisplay, isOpen: true } as const
  const token = begun.tex === '' ? null : begun
  return cut(token, opener.length + tex.length)
}

function closingMath(text: string, from: number, closer: string): number | null {
  const end = Math.min(text.length, from + LONGEST_MATH)
  for (let at = from; at < end; at += 1) {
    if (text.startsWith(closer, at)) return at
    if (text[at] === '\\') at += 1
  }
  return null
}

/** `$5 and $6` are sums of money. */
function isClosedByDollar(text: string, at: number): boolean {
  return !/\s/.test(text[at - 1] ?? ' ') && !/\d/.test(text[at + 1] ?? '')
}

/** Whether what follows a `$` is a formula in the making, and not money or the name of a variable. */
function looksLikeMath(tex: string): boolean {
  const bare = tex.replace(/\\[a-z]+\*?(?:\{[^}]*\}?)?/gi, '')
  return !/^\d/.test(tex) && !/[a-z]{3}|\p{Script=Han}/iu.test(bare)
}

const RUN = /([*_~])\1*/y

const run: Span = (text, position, before, isWhole) => {
  const match = matchAt(RUN, text, position)
  const [mark, length] = [match?.[1] ?? '', match?.[0].length ?? 1]
  const end = position + length
  const token = runOf(mark, length, position, before, characterAt(text, end))
  return end === text.length && !isWhole ? cut(null, length) : whole(token, length)
}

const entity: Span = (text, position, _before, isWhole) => {
  const match = matchAt(ENTITY, text, position)
  const decoded = match && decodeEntity(match)
  if (match && decoded !== null) return whole(decoded, match[0].length)
  const isBegun = !isWhole && matchAt(ENTITY_BEGUN, text, position) !== null
  return isBegun ? cut(null, text.length - position) : null
}

const POINTED_URL = /<([a-z][a-z0-9+.-]{1,31}:[^\s<>\p{Cc}]*)>/iuy
const POINTED_URL_BEGUN = /<((?:https?:\/\/|mailto:)[^\s<>]*)$/iy
const POINTED_EMAIL =
  /<([\w.!#$%&'*+/=?^`{|}~-]+@[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)*)>/iy
const LINE_BREAK = /<br\s*\/?>/iy
const LINE_BREAK_BEGUN = /<(?:b(?:r\s*\/?)?)?$/iy

const angle: Span = (text, position, _before, isWhole) => {
  const url = matchAt(POINTED_URL, text, position)
  if (url) return whole(linkTo(url[1] ?? ''), url[0].length)
  const email = matchAt(POINTED_EMAIL, text, position)
  if (email) return whole(linkTo(email[1] ?? '', 'mailto:'), email[0].length)
  const lineBreak = matchAt(LINE_BREAK, text, position)
  if (lineBreak) return whole({ type: 'break' }, lineBreak[0].length)
  if (isWhole) return null
  const begun = matchAt(POINTED_URL_BEGUN, text, position)
  if (begun) return cut(linkTo(begun[1] ?? ''), begun[0].length)
  return matchAt(LINE_BREAK_BEGUN, text, position) ? cut(null, text.length - position) : null
}

function linkTo(address: string, scheme = ''): Link {
  return { type: 'link', href: scheme + address, title: '', children: [address], isBare: true }
}

/** An address that begins here, with nothing around it. */
export const bareUrl: Span = (text, position, before, isWhole) => {
  if (/[\p{L}\p{N}]/u.test(before) && !/[\p{Lo}]/u.test(before)) return null
  const matched = matchAt(BARE_URL, text, position)?.[0] ?? ''
  const length = lengthOfUrl(matched)
  const address = matched.slice(0, length)
  if (!/[./][^./]/.test(address)) return null
  const link = linkTo(address, /^www\./i.test(address) ? 'http://' : '')
  return { token: link, length, isCut: position + matched.length === text.length && !isWhole }
}

export const SPANS: Readonly<Record<string, Span>> = {
  '`': code,
  '\\': escape,
  $: dollar,
  '*': run,
  _: run,
  '~': run,
  '&': entity,
  '<': angle,
}
