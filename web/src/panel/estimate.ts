/** How many tokens a text is, roughly, for as long as nobody has counted. */
import type { GrowingText } from '../stream/text.ts'

/** Han and kana: about three tokens for four characters, in Qwen's vocabulary. */
const PER_WIDE = 0.75
/** Latin and the like: about four characters a token. */
const PER_NARROW = 0.25

export function estimateTokens(text: string): number {
  return tokensOf(text.length, countWide(text))
}

interface Counted {
  readonly length: number
  readonly wide: number
}

/** What has been counted of each text, by its lineage. */
const counted = new WeakMap<object, Counted>()

/** The same of a text that grows: only what is new of it is looked at. */
export function estimateGrowing(text: GrowingText): number {
  const known = counted.get(text.lineage)
  const from = known && known.length <= text.length ? known : { length: 0, wide: 0 }
  const wide = from.wide + countWide(text.slice(from.length))
  counted.set(text.lineage, { length: text.length, wide })
  return tokensOf(text.length, wide)
}

function tokensOf(length: number, wide: number): number {
  return Math.ceil(wide * PER_WIDE + (length - wide) * PER_NARROW)
}

function countWide(text: string): number {
  return text.match(/[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}]/gu)?.length ?? 0
}
