import type { Emitter } from 'highlight.js'
import type { Kind, Tokens } from './tokens.ts'

/** Scopes of highlight.js, by their first word, as the kinds that are told apart here. */
const KIND_OF: Readonly<Record<string, Kind>> = {
  keyword: 'keyword',
  'selector-tag': 'keyword',
  name: 'keyword',
  literal: 'number',
  number: 'number',
  string: 'string',
  regexp: 'string',
  addition: 'string',
  char: 'string',
  comment: 'comment',
  quote: 'comment',
  doctag: 'comment',
  deletion: 'meta',
  meta: 'meta',
  title: 'title',
  section: 'title',
  attr: 'title',
  attribute: 'title',
  'selector-class': 'title',
  type: 'type',
  built_in: 'type',
  symbol: 'type',
}

/** Takes what highlight.js finds, and notes where it is instead of making HTML of it. */
export class TokenList implements Emitter {
  readonly #scopes: (Kind | null)[] = []
  readonly #places: number[] = []
  readonly #kinds: Kind[] = []
  #line = 0
  #column = 0

  get tokens(): Omit<Tokens, 'id'> {
    return { places: new Uint32Array(this.#places), kinds: this.#kinds }
  }

  addText(text: string): void {
    const kind = this.#scopes.findLast((scope) => scope !== null) ?? null
    for (const [at, line] of text.split('\n').entries()) {
      if (at > 0) this.#nextLine()
      if (kind !== null && line.trim() !== '') this.#add(kind, line.length)
      this.#column += line.length
    }
  }

  // highlight.js calls these as well, which its types do not say.
  openNode(name: string): void {
    this.startScope(name)
  }

  closeNode(): void {
    this.endScope()
  }

  startScope(name: string): void {
    this.#scopes.push(KIND_OF[name.split('.')[0] ?? ''] ?? null)
  }

  endScope(): void {
    this.#scopes.pop()
  }

  __addSublanguage(inner: Emitter): void {
    if (!(inner instanceof TokenList))
      throw new Error('A language inside of another has another emitter.')
    const { places, kinds } = inner.tokens
    for (const [at, kind] of kinds.entries()) {
      const [line = 0, from = 0, to = 0] = places.subarray(3 * at, 3 * at + 3)
      const shift = line === 0 ? this.#column : 0
      this.#places.push(this.#line + line, from + shift, to + shift)
      this.#kinds.push(kind)
    }
    this.#column = inner.#line === 0 ? this.#column + inner.#column : inner.#column
    this.#line += inner.#line
  }

  finalize(): void {
    // Everything is noted as it comes.
  }

  toHTML(): string {
    return ''
  }

  #nextLine(): void {
    this.#line += 1
    this.#column = 0
  }

  #add(kind: Kind, length: number): void {
    this.#places.push(this.#line, this.#column, this.#column + length)
    this.#kinds.push(kind)
  }
}
