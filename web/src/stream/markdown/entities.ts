/**
 * Entities that occur in answers. The whole list of HTML has 2,231 names and would weigh as much as all
 * the rest of the parser; a name that is not here stays as it was written.
 */
const NAMED =
  'amp& lt< gt> quot" apos\' nbsp\u00a0 copy\u00a9 reg\u00ae trade\u2122 hellip\u2026 mdash\u2014 ndash\u2013 ' +
  'lsquo\u2018 rsquo\u2019 ldquo\u201c rdquo\u201d laquo\u00ab raquo\u00bb bull\u2022 middot\u00b7 sect\u00a7 para\u00b6 ' +
  'deg\u00b0 plusmn\u00b1 times\u00d7 divide\u00f7 minus\u2212 ne\u2260 le\u2264 ge\u2265 asymp\u2248 equiv\u2261 infin\u221e ' +
  'sum\u2211 prod\u220f radic\u221a int\u222b part\u2202 nabla\u2207 isin\u2208 notin\u2209 cap\u2229 cup\u222a sub\u2282 ' +
  'sup\u2283 forall\u2200 exist\u2203 empty\u2205 and\u2227 or\u2228 not\u00ac rarr\u2192 larr\u2190 uarr\u2191 darr\u2193 ' +
  'harr\u2194 rArr\u21d2 lArr\u21d0 hArr\u21d4 alpha\u03b1 beta\u03b2 gamma\u03b3 delta\u03b4 epsilon\u03b5 theta\u03b8 ' +
  'lambda\u03bb mu\u03bc pi\u03c0 rho\u03c1 sigma\u03c3 tau\u03c4 phi\u03c6 psi\u03c8 omega\u03c9 Delta\u0394 Sigma\u03a3 ' +
  'Omega\u03a9 euro\u20ac pound\u00a3 yen\u00a5 cent\u00a2 frac12\u00bd frac14\u00bc frac34\u00be sup2\u00b2 sup3\u00b3 ' +
  'micro\u00b5 eacute\u00e9 egrave\u00e8 agrave\u00e0 ccedil\u00e7 auml\u00e4 ouml\u00f6 uuml\u00fc Auml\u00c4 Ouml\u00d6 ' +
  'Uuml\u00dc szlig\u00df ntilde\u00f1 oslash\u00f8 aring\u00e5 check\u2713 cross\u2717 star\u2606 hearts\u2665 ' +
  'ensp\u2002 emsp\u2003 thinsp\u2009 zwj\u200d zwnj\u200c shy\u00ad'

const named = new Map(NAMED.split(' ').map((entry) => [entry.slice(0, -1), entry.slice(-1)]))

export const ENTITY = /&(?:#x([0-9a-f]{1,6})|#(\d{1,7})|([a-z][a-z0-9]{1,31}));/iy

/** An entity of which the end may not have arrived. */
export const ENTITY_BEGUN = /&(?:#x?)?[a-z0-9]{0,31}$/iy

/** `null` for a name that is not known. The match is one of `ENTITY`. */
export function decodeEntity(match: RegExpExecArray): string | null {
  const [, hexadecimal, decimal, name] = match
  if (name !== undefined) return named.get(name) ?? null
  const code = hexadecimal === undefined ? Number(decimal) : parseInt(hexadecimal, 16)
  const isCharacter = code > 0 && code <= 0x10ffff && (code < 0xd800 || code > 0xdfff)
  return isCharacter ? String.fromCodePoint(code) : '\ufffd'
}

const ESCAPE_OR_ENTITY = /\\([!-/:-@[-`{-~])|&(?:#x[0-9a-f]{1,6}|#\d{1,7}|[a-z][a-z0-9]{1,31});/gi

/** A destination, title or language as it is meant: without backslash escapes and entities. */
export function unescape(text: string): string {
  if (!/[\\&]/.test(text)) return text
  return text.replace(ESCAPE_OR_ENTITY, (written, escaped?: string) => escaped ?? decode(written))
}

function decode(written: string): string {
  ENTITY.lastIndex = 0
  const match = ENTITY.exec(written)
  return (match && decodeEntity(match)) ?? written
}
