/**
 * What a reader sees as one character, and how long a writer would take for it.
 *
 * Text is segmented once, when it arrives. Only the last grapheme is looked at again with the next arrival,
 * because it may grow: a combining accent, the second half of a flag, the rest of a family.
 */
import type { Readable } from './text.ts'

/** The costs of one grapheme; a pause is paid by the grapheme behind the mark, as a writer pauses after it. */
export interface Costs {
  readonly narrow: number
  readonly wide: number
  readonly pauseAfterComma: number
  readonly pauseAfterSentence: number
}

const WIDE =
  /^[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Hangul}\p{Extended_Pictographic}]/u
const COMMAS = new Set(',，、;；:：')
const SENTENCE_ENDS = new Set('.。!！?？…\n')

/** What is shown goes from the queue in lots, because removing from the front of an array copies the rest. */
const LOT = 512
/** Sums of shares miss the whole by a rounding error, and a deadline with it. */
const ROUNDING = 1e-6
/** No grapheme that occurs in prose is longer, in UTF-16 units. */
const LONGEST = 64

const segmenter = 'Segmenter' in Intl ? new Intl.Segmenter() : null

/** Browsers without a segmenter get code points, so that at least no surrogate pair is torn. */
function* segments(text: string): Generator<string, void, undefined> {
  if (segmenter === null) return yield* text
  for (const { segment } of segmenter.segment(text)) yield segment
}

/** The graphemes that have arrived and are not shown yet, each with its end and the cost up to it. */
export class GraphemeQueue {
  readonly #costs: Costs
  #ends: number[] = []
  #costsTo: number[] = []
  #head = 0
  #lastStart = 0
  #last = ''
  #length = 0
  #total = 0

  constructor(costs: Costs) {
    this.#costs = costs
  }

  /** The cost of all that has arrived. */
  get total(): number {
    return this.#total
  }

  get waiting(): number {
    return this.#ends.length - this.#head
  }

  /** Take in a text that goes on where the last one ended. */
  extend(text: Readable): void {
    if (text.length <= this.#length) return
    let at = this.#lastStart
    let isGrown = this.#last !== ''
    for (const segment of segments(text.slice(at))) {
      if (isGrown) this.#grow(at + segment.length)
      else this.#push(at, segment)
      this.#last = segment
      this.#lastStart = at
      at += segment.length
      isGrown = false
    }
    this.#length = text.length
  }

  /** The end of the last grapheme that can be had for `cost`, in UTF-16 units, or null where there is none. */
  take(cost: number): number | null {
    let end: number | null = null
    while (this.#head < this.#ends.length && (this.#costsTo[this.#head] ?? 0) <= cost + ROUNDING) {
      end = this.#ends[this.#head] ?? null
      this.#head += 1
    }
    if (this.#head > LOT) this.#forget()
    return end
  }

  /** What the next `count` graphemes can be had for, or null where fewer wait. */
  costOf(count: number): number | null {
    return this.#costsTo[this.#head + count - 1] ?? null
  }

  /** All of `text` is shown: nothing waits. */
  skipTo(text: Readable): void {
    this.#forget(this.#ends.length)
    this.#length = text.length
    this.#last = lastOf(text.slice(Math.max(0, text.length - LONGEST)))
    this.#lastStart = text.length - this.#last.length
  }

  #push(start: number, segment: string): void {
    const isWide = WIDE.test(segment)
    this.#total += this.#pause() + (isWide ? this.#costs.wide : this.#costs.narrow)
    this.#ends.push(start + segment.length)
    this.#costsTo.push(this.#total)
  }

  /** The last grapheme ends further on now; one that is shown already shows the rest at no cost. */
  #grow(end: number): void {
    if (end === this.#length) return
    if (this.waiting > 0) this.#ends[this.#ends.length - 1] = end
    else {
      this.#ends.push(end)
      this.#costsTo.push(this.#total)
    }
  }

  #pause(): number {
    if (COMMAS.has(this.#last)) return this.#costs.pauseAfterComma
    return SENTENCE_ENDS.has(this.#last) ? this.#costs.pauseAfterSentence : 0
  }

  #forget(count = this.#head): void {
    this.#ends = this.#ends.slice(count)
    this.#costsTo = this.#costsTo.slice(count)
    this.#head = 0
  }
}

function lastOf(text: string): string {
  let last = ''
  for (const segment of segments(text)) last = segment
  return last
}
