/** What is shown while it arrives. */
import { expect, test } from 'vitest'
import { htmlOf } from './html.fake.ts'
import { MarkdownStream } from './markdown.ts'

function shown(markdown: string): string {
  const stream = new MarkdownStream()
  stream.append(markdown)
  return htmlOf(stream.open).trim()
}

test.each([
  ['**bol', '<strong>bol</strong>'],
  ['**bold*', '<strong>bold</strong>'],
  ['a **', 'a'],
  ['*it', '<em>it</em>'],
  ['***bo', '<em><strong>bo</strong></em>'],
  ['~~gon', '<s>gon</s>'],
  ['a `cod', 'a <code>cod</code>'],
  ['a ``co`d`', 'a <code>co`d</code>'],
  ['**a `b', '<strong>a <code>b</code></strong>'],
  ['[tex', ''],
  ['a [tex', 'a [tex'],
  ['a [text]', 'a [text'],
  ['a [text](', 'a <a>text</a>'],
  ['a [text](https://exam', 'a <a>text</a>'],
  ['a [text](/u "ti', 'a <a>text</a>'],
  ['a [text][lab', 'a [text][lab'],
  ['a [text][label] b', 'a <a>text</a> b'],
  ['row[i][j] b', 'row[i][j] b'],
  ['a ![alt', 'a <img src="?" alt="alt">'],
  ['a ![alt](https://exam', 'a <img src="?" alt="alt">'],
  ['a <https://exa', 'a <a href="https://exa">https://exa</a>'],
  ['a <br', 'a'],
  ['a &am', 'a'],
  ['a \\', 'a'],
  ['a $x^', 'a <math open>x^</math>'],
  ['a $5 and', 'a $5 and'],
  ['a $HOME', 'a $HOME'],
  ['a \\(x', 'a <math open>x</math>'],
  ['a[^1', 'a'],
  ['a[^1] b', 'a<sup>1</sup> b'],
])('%j is shown as %s', (markdown, html) => {
  expect(shown(markdown).replace(/^<p>|<\/p>$/g, '')).toBe(html)
})

test.each([
  '#',
  '##',
  '# ',
  '-',
  '- ',
  '*',
  '1',
  '12.',
  '>',
  '`',
  '``',
  '```',
  '```py',
  '~~~',
  '|',
  '$$',
  '\\',
  '[',
  '[a]:',
  '[a]: https://exam',
  '- [',
  '- [x]',
  '---',
  '   ',
])('of %j nothing is shown yet', (line) => {
  expect(shown(line)).toBe('')
  // Nor below a text that stands already.
  expect(shown(`a\n${line}`)).toBe('<p>a</p>')
})

test('a text is not a heading before its underline is whole', () => {
  expect(shown('a\n==')).toBe('<p>a</p>')
  expect(shown('a\n==\n')).toBe('<h1>a</h1>')
})

test('a table is one from its first bar on', () => {
  const head = '<table><thead><tr><th>a</th><th>b</th></tr></thead></table>'
  for (const markdown of [
    '| a | b',
    '| a | b |',
    '| a | b |\n',
    '| a | b |\n|--',
    '|a|b|\n|-|-|\n',
  ])
    expect(shown(markdown)).toBe(head)
  expect(shown('|a|b|\n|-|-|\n| **x')).toContain('<td><strong>x</strong></td><td></td>')
})

test('a fence shows its lines as they come, without its end in pieces', () => {
  expect(shown('```py\nprint')).toBe('<pre><code class="language-py">print\n</code></pre>')
  expect(shown('```py\nprint\n``')).toBe('<pre><code class="language-py">print\n</code></pre>')
  expect(shown('```py\nprint\n```')).toBe('<pre><code class="language-py">print\n</code></pre>')
})

test('what was shown on trust becomes text when nothing bears it out', () => {
  const stream = new MarkdownStream()
  stream.append('a [text][label] b[^1]\n\n')
  expect(htmlOf(stream.open)).toContain('<a>text</a> b<sup>1</sup>')
  expect(htmlOf(stream.whole)).toContain('a [text][label] b[^1]')
  stream.append('[label]: /url\n\n')
  expect(htmlOf(stream.open)).toContain('<a href="/url">text</a> b<sup>1</sup>')
})
