/** What the page and the worker that colours code say to each other. */

export interface Ask {
  readonly id: number
  readonly language: string
  readonly code: string
}

/** Triples of line, first character in it, and one behind the last; `kinds` has one entry per triple. */
export interface Tokens {
  readonly id: number
  readonly places: Uint32Array
  readonly kinds: readonly Kind[]
}

export type Kind = 'keyword' | 'string' | 'number' | 'comment' | 'title' | 'type' | 'meta'
