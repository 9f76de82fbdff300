/** What the page says, and how it writes numbers. `i18n.test.ts` checks that neither language lacks anything. */
import { en, type Words } from './i18n/en.ts'
import { zh } from './i18n/zh.ts'
import { knownCode } from './remedies.ts'

export type { Words }

export type Language = 'en' | 'zh'

export const words: Readonly<Record<Language, Words>> = { en, zh }

/** The language to start with: the browser's if it is one of ours. */
export function preferred(languages: readonly string[]): Language {
  const known = languages.map((tag) => tag.toLowerCase().split('-')[0])
  return known.find((tag) => tag === 'en' || tag === 'zh') ?? 'en'
}

/** What to say about a failure: our sentence for its code, else the server's. */
export function problemText(words: Words, failure: { code: string; message: string }): string {
  const code = knownCode(failure.code)
  return code === null ? words.problem.other(failure.message) : words.problem[code]
}

const SAMPLE_CHARS = 400
const FENCED = /^ {0,3}(`{3,}|~{3,})[^]*?(?:^ {0,3}\1|$(?![^]))/gmu
/** A word of Latin script weighs as much as one character of the others; kana and hangul are never Chinese. */
const SCRIPTS = [
  ['ja', /[\p{Script=Hiragana}\p{Script=Katakana}]/gu],
  ['ko', /\p{Script=Hangul}/gu],
  ['zh', /\p{Script=Han}/gu],
  ['en', /\p{Script=Latin}+/gu],
] as const

/**
 * The language of a text, for fonts, line breaking and screen readers; null where it is not clear. Fenced code is
 * not counted: its words are English whatever is said about it.
 */
export function languageOf(text: string): (typeof SCRIPTS)[number][0] | null {
  const prose = text.slice(0, 4 * SAMPLE_CHARS).replace(FENCED, '')
  const sample = prose.slice(0, SAMPLE_CHARS)
  const [kana = 0, hangul = 0, han = 0, latin = 0] = SCRIPTS.map(
    ([, script]) => sample.match(script)?.length ?? 0,
  )
  if (kana + hangul + han + latin === 0) return null
  if (latin >= kana + hangul + han) return 'en'
  // Japanese has as many Han characters as kana, and Chinese quotes a word of it at most.
  if (kana > 0.2 * han) return 'ja'
  return hangul > han ? 'ko' : 'zh'
}

export class Numbers {
  readonly #percent: Intl.NumberFormat
  readonly #kilo: Intl.NumberFormat
  readonly #mega: Intl.NumberFormat
  readonly #giga: Intl.NumberFormat
  readonly #plain: Intl.NumberFormat
  readonly #seconds: Intl.NumberFormat
  readonly #minutes: Intl.NumberFormat
  readonly #milliseconds: Intl.NumberFormat
  readonly #tenths: Intl.NumberFormat
  readonly #rounded: Intl.NumberFormat
  readonly #exact: Intl.NumberFormat

  readonly language: Language

  constructor(language: Language) {
    this.language = language
    const unit = (name: string, digits = 0): Intl.NumberFormat =>
      new Intl.NumberFormat(language, {
        style: 'unit',
        unit: name,
        unitDisplay: 'short',
        maximumFractionDigits: digits,
      })
    this.#percent = new Intl.NumberFormat(language, { style: 'percent' })
    this.#kilo = unit('kilobyte')
    this.#mega = unit('megabyte', 1)
    this.#giga = unit('gigabyte', 1)
    this.#plain = new Intl.NumberFormat(language)
    this.#seconds = unit('second')
    this.#minutes = unit('minute')
    this.#milliseconds = unit('millisecond')
    this.#tenths = unit('second', 1)
    this.#exact = new Intl.NumberFormat(language, { maximumFractionDigits: 6, useGrouping: false })
    this.#rounded = new Intl.NumberFormat(language, { maximumSignificantDigits: 3 })
  }

  plain(value: number): string {
    return this.#plain.format(value)
  }

  /** Of a parameter, with all its digits. */
  exact(value: number): string {
    return this.#exact.format(value)
  }

  /** Three digits of it, which is as much as a measurement is worth. */
  rounded(value: number): string {
    return this.#rounded.format(value)
  }

  /** Never 100 % before it is all there. */
  share(value: number): string {
    return this.#percent.format(Math.floor(value * 100) / 100)
  }

  bytes(value: number): string {
    if (value < 1e6) return this.#kilo.format(value / 1e3)
    return value < 1e9 ? this.#mega.format(value / 1e6) : this.#giga.format(value / 1e9)
  }

  /** A time that was measured. */
  time(seconds: number): string {
    if (seconds < 0.0995) return spaced(this.#milliseconds.format(seconds * 1_000))
    return seconds < 59.95 ? spaced(this.#tenths.format(seconds)) : this.duration(seconds)
  }

  duration(seconds: number): string {
    const format = seconds < 90 ? this.#seconds : this.#minutes
    const count = seconds < 90 ? Math.max(1, Math.round(seconds)) : Math.round(seconds / 60)
    return spaced(format.format(count))
  }
}

/** Chinese is set with a space between a number and the word behind it, which the formats do not have. */
function spaced(text: string): string {
  return text.replace(/(\d)(?=\p{Script=Han})/gu, '$1 ')
}
