/** What is not in CommonMark, or is read otherwise here. `commonmark.test.ts` has the rest. */
import { expect, test } from 'vitest'
import { htmlOf } from './html.fake.ts'
import { MarkdownStream } from './markdown.ts'

function ours(markdown: string): string {
  const stream = new MarkdownStream()
  stream.append(markdown)
  return htmlOf(stream.whole).trim()
}

function inlineOf(markdown: string): string {
  return ours(markdown).replace(/^<p>|<\/p>$/g, '')
}

test.each([
  ['**\u6ce8\u610f\uff1a**\u6b63\u6587', '<strong>\u6ce8\u610f\uff1a</strong>\u6b63\u6587'],
  [
    '\u8bf7**\uff08\u6ce8\u610f\uff09**\u770b',
    '\u8bf7<strong>\uff08\u6ce8\u610f\uff09</strong>\u770b',
  ],
  [
    '\u8fd9\u662f**\u201c\u5f15\u53f7\u201d**\u7684',
    '\u8fd9\u662f<strong>\u201c\u5f15\u53f7\u201d</strong>\u7684',
  ],
  ['\u7528**Python (3.11)**\u5199', '\u7528<strong>Python (3.11)</strong>\u5199'],
  ['**Note:**\u6b63\u6587', '<strong>Note:</strong>\u6b63\u6587'],
  ['\u7528**`code`**\u5199', '\u7528<strong><code>code</code></strong>\u5199'],
  ['*\u5f3a\u8c03\u3002*\u540e\u9762', '<em>\u5f3a\u8c03\u3002</em>\u540e\u9762'],
  ['~~\u5220\u9664\uff0c~~\u4fdd\u7559', '<s>\u5220\u9664\uff0c</s>\u4fdd\u7559'],
  ['**\uc8fc\uc758!**\ubcf8\ubb38', '<strong>\uc8fc\uc758!</strong>\ubcf8\ubb38'],
  [
    'snake_case_name \u548c\u53d8\u91cf_\u540d_\u5b57',
    'snake_case_name \u548c\u53d8\u91cf_\u540d_\u5b57',
  ],
  ['2 * 3 * 4', '2 * 3 * 4'],
])('emphasis in %s', (markdown, html) => {
  expect(inlineOf(markdown)).toBe(html)
})

test.each([
  ['$x^2$', '<math>x^2</math>'],
  ['\u8bbe$x$\u4e3a', '\u8bbe<math>x</math>\u4e3a'],
  ['\\(a_1 * b\\) and *c*', '<math>a_1 * b</math> and <em>c</em>'],
  ['\\(a \\\\ b\\)', '<math>a \\\\ b</math>'],
  ['so $$x$$ is', 'so <math>x</math> is'],
  ['so \\[x\\] is', 'so <math>x</math> is'],
  ['costs $5 and $6', 'costs $5 and $6'],
  ['$5-$10', '$5-$10'],
  ['$ x $', '$ x $'],
  ['\\$x\\$ is $', '$x$ is $'],
  ['`$x$`', '<code>$x$</code>'],
  ['\\(open', '(open'],
  ['$HOME and $PATH', '$HOME and $PATH'],
])('mathematics in %s', (markdown, html) => {
  expect(inlineOf(markdown)).toBe(html)
})

test.each([
  ['$$\nx\n\ny\n$$', '<math>x\n\ny</math>'],
  [
    '\u516c\u5f0f\uff1a\n\\[\nx\n\\]\n\u540e',
    '<p>\u516c\u5f0f\uff1a</p>\n<math>x</math>\n<p>\u540e</p>',
  ],
  ['\\[ x \\]', '<math>x</math>'],
  ['1. a\n   \\[\n   x\n   \\]', '<ol>\n<li>a\n<math>x</math>\n</li>\n</ol>'],
  ['> $$\n> x\n> $$', '<blockquote>\n<math>x</math>\n</blockquote>'],
  ['$$\nno *end*\n\n# a', '<p>$$\nno <em>end</em></p>\n<h1>a</h1>'],
  ['- \\[ no end\n\nb', '<ul>\n<li>[ no end</li>\n</ul>\n<p>b</p>'],
])('a formula of its own in %j', (markdown, html) => {
  expect(ours(markdown)).toBe(html)
})

test.each([
  [
    '\u89c1https://example.com\uff0c\u7136\u540e',
    '\u89c1',
    'https://example.com',
    '\uff0c\u7136\u540e',
  ],
  ['(see https://example.com/a_(b))', '(see ', 'https://example.com/a_(b)', ')'],
  ['https://example.com/a.', '', 'https://example.com/a', '.'],
  ['**https://example.com**', '<strong>', 'https://example.com', '</strong>'],
  ['<https://example.com/x>', '', 'https://example.com/x', ''],
])('an address in %s', (markdown, before, href, after) => {
  expect(inlineOf(markdown)).toBe(`${before}<a href="${href}">${href}</a>${after}`)
})

test('www without a scheme is an address, and there are no links in links', () => {
  expect(inlineOf('www.example.com')).toBe('<a href="http://www.example.com">www.example.com</a>')
  expect(inlineOf('[https://a.b/c](https://d.e)')).toBe('<a href="https://d.e">https://a.b/c</a>')
})

test.each([
  ['<b onclick="x">a</b>', '&lt;b onclick=&quot;x&quot;&gt;a&lt;/b&gt;'],
  ['<script>alert(1)</script>', '&lt;script&gt;alert(1)&lt;/script&gt;'],
  ['<!-- a -->', '&lt;!-- a --&gt;'],
  ['a<br>b<br/>c<br />d', 'a<br>\nb<br>\nc<br>\nd'],
])('raw HTML is text: %s', (markdown, html) => {
  expect(inlineOf(markdown)).toBe(html)
})

test('cells hold escaped bars, code and line breaks; rows have as many cells as the head', () => {
  const markdown = '|a|b|c|\n|:-|:-:|-:|\n|x\\|y|`p`<br>q|\n|1|2|3|4|'
  expect(ours(markdown)).toBe(
    '<table><thead><tr><th style="text-align:left">a</th><th style="text-align:center">b</th>' +
      '<th style="text-align:right">c</th></tr></thead><tbody><tr><td style="text-align:left">x|y</td>' +
      '<td style="text-align:center"><code>p</code><br>\nq</td><td style="text-align:right"></td></tr>' +
      '<tr><td style="text-align:left">1</td><td style="text-align:center">2</td>' +
      '<td style="text-align:right">3</td></tr></tbody></table>',
  )
})

test('a table may follow a line of text directly', () => {
  expect(ours('\u5982\u4e0b\uff1a\n|a|\n|-|\n|1|')).toBe(
    '<p>\u5982\u4e0b\uff1a</p>\n<table><thead><tr><th>a</th></tr></thead><tbody><tr><td>1</td></tr></tbody></table>',
  )
})

test('tasks are checked, not checked, or no tasks', () => {
  expect(ours('- [x] a\n- [ ] b\n- [y] c')).toBe(
    '<ul>\n<li><input type="checkbox" checked>a</li>\n<li><input type="checkbox">b</li>\n<li>[y] c</li>\n</ul>',
  )
})

test('footnotes refer to what is there, before or after them', () => {
  expect(ours('a[^1] b[^x]\n\n[^1]: *note*')).toBe(
    '<p>a<sup>1</sup> b[^x]</p>\n<aside><p><em>note</em></p>\n</aside>',
  )
})

test('a tilde is none of two, which strike', () => {
  expect(inlineOf('\u7ea6~5\u5230~10, ~~no~~')).toBe('\u7ea6~5\u5230~10, <s>no</s>')
})

test('carriage returns end lines, alone, before a line feed, and cut apart from it', () => {
  const stream = new MarkdownStream()
  for (const piece of ['# a\r', '\n# b\r', '# c\n', '\r', 'd']) stream.append(piece)
  expect(htmlOf(stream.whole)).toBe('<h1>a</h1>\n<h1>b</h1>\n<h1>c</h1>\n<p>d</p>\n')
})
