/** Addresses in answers: how they are recognized, and which may be followed. */

/**
 * An address without brackets around it. It ends at white space and at what stands around addresses; also at
 * East Asian characters, because Chinese puts no space behind an address, and at what turns the direction of text.
 */
export const BARE_URL =
  /(?:https?:\/\/|www\.(?=[a-z0-9]))[^\s<>"`|\\[\]\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Hangul}\u200e\u200f\u2018-\u201d\u202a-\u202e\u2066-\u2069\u3000-\u303f\uff00-\uffef]+/iuy

export const BARE_URL_START = /https?:\/\/|www\.(?=[a-z0-9])/gi

/** How much of a match of `BARE_URL` is address and not the punctuation of the sentence around it. */
export function lengthOfUrl(matched: string): number {
  let end = matched.length
  for (;;) {
    const trimmed = matched.slice(0, end).replace(/(?:[?!.,:;*_~'\]$]|&[a-z0-9]+;)+$/i, '').length
    const isUnpaired = matched[trimmed - 1] === ')' && !isPaired(matched.slice(0, trimmed))
    if (!isUnpaired && trimmed === end) return end
    end = isUnpaired ? trimmed - 1 : trimmed
  }
}

function isPaired(url: string): boolean {
  return url.split('(').length >= url.split(')').length
}

const FOLLOWED = new Set(['http:', 'https:', 'mailto:'])

/**
 * The address, where it leads out of the page by a harmless scheme. Relative ones are refused as well: in
 * an answer they mean nothing, and would lead into our own server.
 */
export function externalUrl(href: string): URL | null {
  const url = URL.parse(href)
  return url !== null && FOLLOWED.has(url.protocol) ? url : null
}
