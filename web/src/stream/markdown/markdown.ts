/** Markdown that arrives piece by piece. */
import { GrowingText } from '../text.ts'
import { BlockReader } from './blocks.ts'
import type { Chunks } from './chunks.ts'
import type { Block } from './tree.ts'

/**
 * Reads each line once. What a line has settled is the same object in every tree from then on, so that who
 * draws them can tell by identity what to leave alone.
 */
export class MarkdownStream {
  readonly #reader = new BlockReader()
  /** The line that has begun. A carriage return at its end may be half of a line end. */
  #line = ''

  append(text: string): void {
    const isHalf = this.#line.endsWith('\r')
    if (isHalf) this.#line = this.#line.slice(0, -1)
    const arrived = (isHalf ? `\r${text}` : text).replaceAll('\0', '\ufffd')
    const [first = '', ...others] = arrived.split(/\r\n|\n|\r(?!$)/)
    this.#line += first
    for (const line of others) {
      this.#reader.take(this.#line)
      this.#line = line
    }
  }

  /** The answer as it stands. What is begun is shown as what it will most likely be. */
  get open(): Chunks<Block> {
    const line = this.#begun
    const reader = this.#reader.fork()
    return line !== '' && reader.takeBegun(line) ? reader.blocks : this.#reader.blocks
  }

  /** The answer, if this is all of it. */
  get whole(): Chunks<Block> {
    const line = this.#begun
    const reader = this.#reader.fork()
    if (line !== '') reader.take(line)
    return reader.end()
  }

  get #begun(): string {
    return this.#line.endsWith('\r') ? this.#line.slice(0, -1) : this.#line
  }
}

/** Reads a text that mostly grows, each time only what is new of it. */
export class MarkdownReader {
  #stream = new MarkdownStream()
  #text = GrowingText.of('')
  #length = 0
  #isWhole = false
  #tree: Chunks<Block> = []

  /**
   * The tree of the first `length` units of a text, to which more is coming unless it is whole. Any text may
   * follow any other.
   */
  read(text: GrowingText, length: number, isWhole: boolean): Chunks<Block> {
    const goesOn = length >= this.#length && text.continues(this.#text, this.#length)
    this.#text = text
    if (goesOn && length === this.#length && isWhole === this.#isWhole) return this.#tree
    if (!goesOn) {
      this.#stream = new MarkdownStream()
      this.#length = 0
    }
    this.#stream.append(text.slice(this.#length, length))
    this.#length = length
    this.#isWhole = isWhole
    this.#tree = isWhole ? this.#stream.whole : this.#stream.open
    return this.#tree
  }
}
