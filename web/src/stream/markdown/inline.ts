/**
 * Reads the text of a paragraph, a heading or a cell: CommonMark's inline syntax, GFM's `~~` and bare
 * addresses, and mathematics. Raw HTML is text, but for `<br>`.
 */
import { characterBefore } from './characters.ts'
import { append, Emphasis, REACH, TRUST, type Run, type Token } from './emphasis.ts'
import { inlineTarget, labelAt, labelOf, type Cut, type Definitions } from './references.ts'
import { matchAt } from './scan.ts'
import { bareUrl, SPANS, type Found } from './spans.ts'
import { plainText, type Inline } from './tree.ts'
import { BARE_URL_START } from './urls.ts'

/**
 * What is known of the end of the source. `whole`: nothing follows. `arriving`: more may follow, and what is
 * begun is shown as what it will most likely be. `settling`: only what nothing can change any more is wanted.
 */
export type Mode = 'whole' | 'arriving' | 'settling'

export interface Surroundings {
  /** The character before the source, or nothing. */
  readonly before: string
  readonly mode: Mode
  readonly definitions: Definitions
  /** Definitions may still come: what looks like a reference is taken for one. */
  readonly isTrusting: boolean
}

export interface Reading {
  readonly nodes: readonly Inline[]
  /** What would be references if there were definitions. */
  readonly labels: ReadonlySet<string>
  /** Something is shown as a reference on trust. */
  readonly isProvisional: boolean
  /** How much has been read: the whole source, unless only what is settled was wanted. */
  readonly length: number
}

interface Bracket {
  readonly run: Run
  /** Index of the first token inside. */
  readonly inside: number
  readonly isImage: boolean
  canLink: boolean
}

interface Link {
  readonly href: string | null
  readonly title: string
  readonly end: number
}

/** Settled parts have at least this length, so that they are few. */
const SETTLED_LENGTH = 256
/** So much is known of what follows them, more than any rule looks ahead without saying so. */
const LOOKAHEAD = 64

/** In less than this nothing is settled. */
export const LEAST_TO_SETTLE = SETTLED_LENGTH + LOOKAHEAD

const PLAIN = /(?:[^\\`*_~[\]!<&$\n]|!(?!\[))+/y
/** Chinese has no spaces to cut at. Never beside half of a surrogate pair, nor in the white space before a break. */
const CUT = /[\s\u3000-\u9fff\uff00-\uffef](?=[^\s\udc00-\udfff])/g
const URL_HINT = /:\/\/|www\./i
const FOOTNOTE = /\[\^([^\s[\]^]{1,99})\]/y
const FOOTNOTE_BEGUN = /\[\^[^\s[\]^]{0,99}$/y

export function readInline(source: string, surroundings: Surroundings): Reading {
  return new Scanner(source, surroundings).read()
}

class Scanner {
  readonly #source: string
  readonly #surroundings: Surroundings
  /** Looking for addresses in every piece of plain text takes longer than all else. */
  readonly #mayHaveUrls: boolean
  readonly #emphasis = new Emphasis()
  readonly #labels = new Set<string>()
  /** Since the first bracket that is open: a link binds more tightly than emphasis, which has to wait for it. */
  #tokens: Token[] = []
  #brackets: Bracket[] = []
  #position = 0
  #isProvisional = false
  /** Where what is settled ends; 0 where that cannot be said yet. */
  #settled: number | null = null

  constructor(source: string, surroundings: Surroundings) {
    this.#source = source
    this.#surroundings = surroundings
    this.#mayHaveUrls = URL_HINT.test(source)
  }

  read(): Reading {
    while (this.#position < this.#source.length && this.#settled === null) {
      if (!this.#readPlain()) this.#readSpecial()
    }
    const length = this.#settled ?? (this.#isSettling ? 0 : this.#source.length)
    const [labels, isProvisional] = [this.#labels, this.#isProvisional]
    return { nodes: this.#nodes(), labels, isProvisional, length }
  }

  get #isWhole(): boolean {
    return this.#surroundings.mode === 'whole'
  }

  get #isSettling(): boolean {
    return this.#surroundings.mode === 'settling'
  }

  #nodes(): readonly Inline[] {
    const { mode } = this.#surroundings
    if (mode === 'arriving') this.#completeImage()
    for (const token of this.#tokens) this.#emphasis.take(token)
    if (this.#isSettling) return this.#emphasis.end()
    const isArriving = mode === 'arriving'
    const end = this.#source.length
    return trimEnd(isArriving ? this.#emphasis.endProvisionally(end) : this.#emphasis.end())
  }

  #readPlain(): boolean {
    const text = matchAt(PLAIN, this.#source, this.#position)?.[0]
    if (text === undefined) return false
    const url = this.#urlIn(text)
    const plain = url === null ? text : text.slice(0, url.at)
    const settled = this.#isSettling ? this.#settledIn(plain) : null
    this.#push(plain.slice(0, settled ?? plain.length))
    if (settled !== null) this.#settled = this.#position
    else if (url) this.#take(url.found, 1)
    return true
  }

  /** Where in plain text that begins here a settled part may end. */
  #settledIn(plain: string): number | null {
    const end = this.#position + plain.length
    CUT.lastIndex = Math.max(this.#position, SETTLED_LENGTH - 1)
    if (CUT.lastIndex >= end || !this.#isQuiet()) return null
    const cut = (CUT.exec(this.#source)?.index ?? end) + 1
    const isKnown = cut <= this.#source.length - LOOKAHEAD
    return cut <= end && isKnown ? cut - this.#position : null
  }

  /** Whether nothing is open here that may still be closed. */
  #isQuiet(): boolean {
    while (this.#isOutOfReach(this.#brackets[0])) this.#brackets.shift()
    if (this.#brackets.length > 0) return false
    this.#settleTokens()
    this.#emphasis.forget(this.#position)
    return this.#emphasis.isSettled
  }

  #isOutOfReach(bracket: Bracket | undefined): boolean {
    return bracket !== undefined && this.#position - bracket.run.position > REACH
  }

  #settleTokens(): void {
    for (const token of this.#tokens) this.#emphasis.take(token)
    this.#tokens = []
  }

  #urlIn(text: string): { readonly at: number; readonly found: Found } | null {
    if (!this.#mayHaveUrls) return null
    for (const { index } of text.matchAll(BARE_URL_START)) {
      const at = this.#position + index
      const found = bareUrl(this.#source, at, this.#before(at), this.#isWhole)
      if (found) return { at: index, found }
    }
    return null
  }

  #readSpecial(): void {
    const character = this.#source[this.#position] ?? ''
    if (character === '\n') this.#endLine()
    else if (character === '[' || character === '!') this.#openBracket(character)
    else if (character === ']') this.#closeBracket()
    else this.#readSpan(character)
  }

  #readSpan(character: string): void {
    const before = this.#before(this.#position)
    const found = SPANS[character]?.(this.#source, this.#position, before, this.#isWhole) ?? null
    this.#take(found, '`$'.includes(character) ? this.#repeated(character) : 1)
  }

  /** Takes what has been found, or so many characters as text. */
  #take(found: Found | null, literal: number): void {
    if (found === null) {
      this.#push(this.#source.slice(this.#position, this.#position + literal))
    } else if (found.isCut && this.#isSettling) {
      this.#settled = 0
    } else {
      if (found.token !== null) append(this.#tokens, found.token)
      this.#position += found.length
    }
  }

  #repeated(character: string): number {
    let end = this.#position
    while (this.#source[end] === character) end += 1
    return end - this.#position
  }

  #before(position: number): string {
    return position === 0 ? this.#surroundings.before : characterBefore(this.#source, position)
  }

  #push(text: string): void {
    append(this.#tokens, text)
    this.#position += text.length
  }

  #endLine(): void {
    const line = this.#tokens.at(-1)
    const isHard = typeof line === 'string' && line.endsWith('  ')
    if (typeof line === 'string') this.#tokens[this.#tokens.length - 1] = line.replace(/ +$/, '')
    if (isHard) this.#tokens.push({ type: 'break' })
    else append(this.#tokens, '\n')
    this.#position += matchAt(/\n[ \t]*/y, this.#source, this.#position)?.[0].length ?? 1
  }

  #openBracket(mark: '[' | '!'): void {
    if (mark === '[' && this.#readFootnote()) return
    const isImage = mark === '!'
    const run: Run = {
      type: 'run',
      mark: isImage ? '![' : '[',
      length: 1,
      position: this.#position,
      canOpen: false,
      canClose: false,
    }
    this.#tokens.push(run)
    this.#position += run.mark.length
    this.#brackets.push({ run, inside: this.#tokens.length, isImage, canLink: true })
  }

  #readFootnote(): boolean {
    const written = matchAt(FOOTNOTE, this.#source, this.#position)
    if (written === null) {
      const begun = matchAt(FOOTNOTE_BEGUN, this.#source, this.#position)
      if (begun && this.#surroundings.mode === 'arriving') this.#position = this.#source.length
      return begun !== null && this.#surroundings.mode === 'arriving'
    }
    const label = written[1] ?? ''
    const isKnown = this.#isDefined(`^${labelOf(label)}`)
    const isTrusted = !isKnown && this.#surroundings.isTrusting && /^\d+$/.test(label)
    if (!isKnown && !isTrusted) return false
    this.#isProvisional ||= isTrusted
    this.#tokens.push({ type: 'footnote', label })
    this.#position += written[0].length
    return true
  }

  #isDefined(label: string): boolean {
    const isDefined = this.#surroundings.definitions.has(label)
    if (!isDefined) this.#labels.add(label)
    return isDefined
  }

  #closeBracket(): void {
    const bracket = this.#brackets.at(-1)
    if (bracket === undefined) return this.#push(']')
    const isLast = this.#position === this.#source.length - 1
    if (isLast && !this.#isWhole && !this.#isOutOfReach(bracket))
      return this.#take({ token: null, length: 1, isCut: true }, 1)
    const link = bracket.canLink && !this.#isOutOfReach(bracket) ? this.#linkOf(bracket) : null
    if (link === 'cut') {
      this.#settled = 0
      return
    }
    this.#brackets.pop()
    if (link === null) return this.#push(']')
    this.#wrapLink(bracket, link)
  }

  #wrapLink({ isImage, inside }: Bracket, { href, title, end }: Link): void {
    const content = new Emphasis()
    for (const token of this.#tokens.splice(inside)) content.take(unlinked(token))
    this.#tokens.pop()
    const children = content.end()
    if (isImage) this.#tokens.push({ type: 'image', src: href, title, alt: plainText(children) })
    else this.#tokens.push({ type: 'link', href, title, children, isBare: false })
    // Links do not contain links.
    if (!isImage) for (const outer of this.#brackets) outer.canLink &&= outer.isImage
    this.#position = end
  }

  /** What the text in brackets that ends here links to. */
  #linkOf(bracket: Bracket): Link | Cut | null {
    const next = this.#source[this.#position + 1]
    const target = next === '(' ? inlineTarget(this.#source, this.#position + 1) : null
    if (target === 'cut') return this.#linkInTheMaking()
    return target ?? this.#referenceOf(bracket)
  }

  #linkInTheMaking(): Link | Cut | null {
    const { mode } = this.#surroundings
    if (mode === 'settling') return 'cut'
    return mode === 'arriving' ? { href: null, title: '', end: this.#source.length } : null
  }

  #referenceOf(bracket: Bracket): Link | Cut | null {
    const from = bracket.run.position + bracket.run.mark.length
    const text = this.#source.slice(from, this.#position)
    const label = labelAt(this.#source, this.#position + 1)
    const isFull = label !== null && label.text.trim() !== ''
    const written = isFull ? label.text : isLabel(text) ? text : ''
    if (written.trim() === '') return null
    const target = this.#surroundings.definitions.get(labelOf(written))
    const end = label?.end ?? this.#position + 1
    if (target) return { ...target, end }
    this.#labels.add(labelOf(written))
    return isFull && this.#isTrusted(bracket) ? { href: null, title: '', end } : null
  }

  /** `[text][label]` is a reference unless it stands behind a word, like `table[row][column]`. */
  #isTrusted({ run }: Bracket): boolean {
    const isIndex = /[\w\])]/.test(this.#before(run.position))
    const isTrusted = this.#surroundings.isTrusting && !isIndex
    this.#isProvisional ||= isTrusted
    return isTrusted
  }

  /** An image of which the end has not arrived is one already; its source would flash by as text. */
  #completeImage(): void {
    const bracket = this.#brackets.findLast(({ isImage }) => isImage)
    if (bracket === undefined || this.#source.length - bracket.run.position > TRUST) return
    this.#wrapLink(bracket, { href: null, title: '', end: this.#source.length })
  }
}

function isLabel(text: string): boolean {
  return !/^(?:[^[\]\\]|\\[^])*[[\]]/.test(text) && text.length < 1_000
}

function unlinked(token: Token): Token {
  const isBareLink = typeof token !== 'string' && token.type === 'link' && token.isBare
  return isBareLink ? plainText(token.children) : token
}

function trimEnd(nodes: readonly Inline[]): readonly Inline[] {
  const last = nodes.at(-1)
  if (typeof last !== 'string') return nodes
  const trimmed = last.replace(/[ \t\n]+$/, '')
  return trimmed === '' ? nodes.slice(0, -1) : nodes.with(-1, trimmed)
}
