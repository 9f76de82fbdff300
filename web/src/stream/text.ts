/**
 * A text that grows at its end. Adding to a string and then looking into it copies all of it, which for an
 * answer of a hundred kilobytes is megabytes a second; every piece that is kept of such a copy keeps it all.
 */

/** What can be read of a text without making a string of all of it. A string is one. */
export interface Readable {
  readonly length: number
  readonly slice: (from: number, to?: number) => string
}

/**
 * UTF-16 units. Looking at the end copies at most so much; and one Chinese character has all of a piece take two
 * bytes a character.
 */
const PIECE = 256

/** Texts of which each has grown out of the one before it. */
interface Lineage {
  /** Of the last of them. */
  length: number
}

/** A value: growing makes another one, which shares with this one all but its end. */
export class GrowingText implements Readable {
  readonly length: number
  readonly #lineage: Lineage
  /** Full pieces, and behind them the end. */
  readonly #pieces: readonly string[]
  readonly #end: string
  #whole: string | null = null

  private constructor(lineage: Lineage, pieces: readonly string[], end: string) {
    this.length = pieces.length * PIECE + end.length
    this.#lineage = lineage
    this.#pieces = pieces
    this.#end = end
  }

  static of(text: string): GrowingText {
    return new GrowingText({ length: 0 }, [], '').grow(text)
  }

  grow(text: string): GrowingText {
    // What has grown already and grows again in another way is the first of a lineage of its own.
    const isLast = this.#lineage.length === this.length
    const lineage = isLast ? this.#lineage : { length: this.length }
    lineage.length += text.length
    const end = this.#end + text
    if (end.length < PIECE) return new GrowingText(lineage, this.#pieces, end)
    const pieces = [...this.#pieces]
    let at = 0
    for (; end.length - at >= PIECE; at += PIECE) pieces.push(end.slice(at, at + PIECE))
    return new GrowingText(lineage, pieces, end.slice(at))
  }

  /** As of a string, but for negative positions; and what is kept of it keeps nothing else. */
  readonly slice = (from: number, to = this.length): string => {
    const [first, last] = [Math.floor(from / PIECE), Math.floor(to / PIECE)]
    if (to <= from) return ''
    const parts: string[] = []
    for (let at = first; at <= last; at += 1) {
      const start = at * PIECE
      const piece = this.#pieces[at] ?? this.#end
      parts.push(piece.slice(Math.max(0, from - start), to - start))
    }
    return parts.length === 1 ? copyOf(parts[0] ?? '') : parts.join('')
  }

  /** The same object for all texts that have grown out of one another, for whoever remembers something of them. */
  get lineage(): object {
    return this.#lineage
  }

  /** Whether this is how `text` goes on behind its first `length` units. */
  continues(text: GrowingText, length: number): boolean {
    if (this.length < length) return false
    return this.#lineage === text.#lineage || this.slice(0, length) === text.slice(0, length)
  }

  toString(): string {
    this.#whole ??= this.slice(0)
    return this.#whole
  }
}

/** A part of a string keeps all of it; what is joined is one of its own. */
function copyOf(text: string): string {
  const half = text.length >> 1
  return [text.slice(0, half), text.slice(half)].join('')
}
