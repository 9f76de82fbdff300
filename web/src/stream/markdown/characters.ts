/** Classes of characters, as CommonMark and the reading of Chinese text need them. */

const WHITESPACE = /^\s$/u
const PUNCTUATION = /^[\p{P}\p{S}]$/u
const EAST_ASIAN =
  /^[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Hangul}\p{Script=Bopomofo}\u3000-\u303f\ufe30-\ufe4f\uff00-\uffef]$/u

export type Kind = 'space' | 'punctuation' | 'east-asian' | 'east-asian-punctuation' | 'other'

const kindsOfAscii: readonly Kind[] = Array.from({ length: 128 }, (_, code) =>
  classify(String.fromCharCode(code)),
)

/** The kind of a character (a whole code point); the end of a text counts as space. */
export function kindOf(character: string): Kind {
  return kindsOfAscii[character.codePointAt(0) ?? 32] ?? classify(character)
}

function classify(character: string): Kind {
  if (WHITESPACE.test(character)) return 'space'
  const isPunctuation = PUNCTUATION.test(character)
  if (EAST_ASIAN.test(character)) return isPunctuation ? 'east-asian-punctuation' : 'east-asian'
  return isPunctuation ? 'punctuation' : 'other'
}

/** The code point that ends at `index`, or nothing. */
export function characterBefore(text: string, index: number): string {
  const isPair = index > 1 && (text.charCodeAt(index - 1) & 0xfc00) === 0xdc00
  return text.slice(isPair ? index - 2 : Math.max(0, index - 1), index)
}

/** The code point that begins at `index`, or nothing. */
export function characterAt(text: string, index: number): string {
  const code = text.codePointAt(index)
  return code === undefined ? '' : String.fromCodePoint(code)
}

const ESCAPABLE = /^[!-/:-@[-`{-~]$/

export function isEscapable(character: string): boolean {
  return ESCAPABLE.test(character)
}
