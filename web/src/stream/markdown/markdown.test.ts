import { expect, test } from 'vitest'
import { answerOf, Chance, codeBlock, paragraph, soupOf } from './answers.fake.ts'
import type { Chunks } from './chunks.ts'
import { htmlOf } from './html.fake.ts'
import { GrowingText } from '../text.ts'
import { MarkdownReader, MarkdownStream } from './markdown.ts'
import type { Block } from './tree.ts'

const SCRAPS =
  '* ** *** _ __ ~~ ` `` ``` ~~~ [ ] ( ) [a](b) [a]: [a] [^1] [^1]: ![ < > <br> & &amp; \\ \\( \\) \\[ \\] $ $$ # ## - + 1. 2) - [ ] > | |-|-| : = == --- === a b word \u4e2d \u6587\uff0c " ! . https://a.b/c \u{1f600} \r'.split(
    ' ',
  )
const GLUE = [
  '',
  '',
  '',
  ' ',
  ' ',
  '  ',
  '\n',
  '\n',
  '\n\n',
  '\r\n',
  '    ',
  '\n  ',
  '\n    ',
  '\t',
]

function wholeOf(text: string): Chunks<Block> {
  const stream = new MarkdownStream()
  stream.append(text)
  return stream.whole
}

function textFrom(chance: Chance): string {
  const makers = [
    () => answerOf(chance, 1 + chance.below(6)),
    () => soupOf(chance, 2 + chance.below(80), SCRAPS, GLUE),
    () => `${paragraph(chance)} `.repeat(1 + chance.below(20)),
    () => soupOf(chance, 3_000, [...'*$`[a\u4e2d '], ['', '', ' ', '\n']),
  ]
  return chance.pick(makers)()
}

test('however a text is cut, it becomes the same tree', () => {
  const first = Date.now()
  for (let seed = first; seed < first + 80; seed += 1) {
    const chance = new Chance(seed)
    const text = textFrom(chance)
    const stream = new MarkdownStream()
    for (const piece of chance.cut(text, 1 + chance.below(text.length / 4 + 1))) {
      stream.append(piece)
      // Looking at it in between changes nothing.
      if (chance.next() < 0.5) void stream.open
    }
    expect(stream.whole, `seed ${seed}`).toEqual(wholeOf(text))
  }
})

test('what is settled is the same object in every tree after that', () => {
  const first = Date.now()
  for (let seed = first; seed < first + 5; seed += 1) {
    const stream = new MarkdownStream()
    let before: readonly Block[] = []
    for (const unit of answerOf(new Chance(seed), 6)) {
      stream.append(unit)
      const now = stream.open.flat()
      const settled = before.slice(0, -1)
      expect(now.slice(0, settled.length), `seed ${seed}`).toSatisfy((blocks: readonly Block[]) =>
        blocks.every((block, index) => block === settled[index]),
      )
      before = now
    }
  }
})

test('a block that is being written changes its kind at most once', () => {
  const first = Date.now()
  for (let seed = first; seed < first + 5; seed += 1) {
    const stream = new MarkdownStream()
    const kinds = new Map<number, string[]>()
    for (const unit of answerOf(new Chance(seed), 8)) {
      stream.append(unit)
      const blocks = stream.open.flat()
      const seen = kinds.get(blocks.length) ?? []
      const kind = blocks.at(-1)?.type ?? 'nothing'
      if (seen.at(-1) !== kind) kinds.set(blocks.length, [...seen, kind])
    }
    for (const [index, seen] of kinds)
      expect(seen.length, `seed ${seed}, block ${index}: ${seen.join(', ')}`).toBeLessThanOrEqual(2)
  }
})

test('text that is shown stays, but for the markup at its end', () => {
  const first = Date.now()
  for (let seed = first; seed < first + 5; seed += 1) {
    const stream = new MarkdownStream()
    let before = ''
    for (const unit of answerOf(new Chance(seed), 6)) {
      stream.append(unit)
      const now = textOf(stream.open)
      const kept = commonPrefix(before, now)
      expect(before.length - kept, `seed ${seed}: ${before.slice(kept)}`).toBeLessThanOrEqual(48)
      before = now
    }
  }
})

function textOf(blocks: Chunks<Block>): string {
  return htmlOf(blocks).replace(/<[^>]*>|\n/g, '')
}

function commonPrefix(one: string, other: string): number {
  let length = 0
  while (length < one.length && one[length] === other[length]) length += 1
  return length
}

/** How many nodes of a tree are not in the tree before it. */
function newNodes(before: unknown, now: unknown): number {
  if (before === now || typeof now !== 'object' || now === null) return 0
  const old = typeof before === 'object' && before !== null ? (before as object) : {}
  const entries = Object.entries(now)
  return entries.reduce((count, [key, value]) => count + newNodes(Reflect.get(old, key), value), 1)
}

const chance = new Chance(1)
test.each([
  ['paragraphs', chance.times(300, () => paragraph(chance)).join('\n\n')],
  ['a paragraph of many lines', chance.times(300, () => paragraph(chance)).join('\n')],
  ['a paragraph in one line', chance.times(300, () => paragraph(chance)).join(' ')],
  ['Chinese without a space', '\u6d41\u5f0f\u8f93\u51fa\u3002'.repeat(6_000)],
  ['a table', `|a|b|\n|-|-|\n${'| one | **two** |\n'.repeat(1_500)}`],
  ['a list', '- an item of **some** words\n'.repeat(1_200)],
  [
    'a fence',
    `\`\`\`\n${chance.times(150, () => codeBlock(chance).replaceAll('`', '')).join('\n')}`,
  ],
  ['a quote', '> words in a quote\n'.repeat(1_500)],
  ['what never closes', `*${'words and '.repeat(3_000)}`],
])('a step makes no more new nodes late in %s than early', (_, text) => {
  const stream = new MarkdownStream()
  const counts: number[] = []
  let before: unknown = null
  for (const piece of new Chance(2).cut(text, 24)) {
    stream.append(piece)
    const now = stream.open
    counts.push(newNodes(before, now))
    before = now
  }
  const third = Math.floor(counts.length / 3)
  const largest = (part: readonly number[]): number => Math.max(...part)
  // The list of chunks itself is one node, however long it is.
  expect(largest(counts.slice(-third))).toBeLessThanOrEqual(1.5 * largest(counts.slice(0, third)))
})

test('a reader follows a text that grows, and any other text that takes its place', () => {
  const reader = new MarkdownReader()
  const texts = ['', '# a', '# a\n\n**b', '# a\n\n**b**', '# a', 'c', 'c', '']
  for (const text of texts.map(GrowingText.of)) {
    for (const length of [text.length, 0, text.length >> 1, text.length]) {
      const expected = wholeOf(text.slice(0, length))
      expect(reader.read(text, length, true)).toEqual(expected)
      reader.read(text, length, false)
    }
  }
  let grown = GrowingText.of('# a\n\n')
  for (const piece of ['', 'b **c', '**', '\n\nd']) {
    grown = grown.grow(piece)
    expect(reader.read(grown, grown.length, true)).toEqual(wholeOf(grown.toString()))
    reader.read(grown, grown.length, false)
  }
})

test.each(['> ', '- ', '1. ', '> - '])('there is an end to what stands in %j', (mark) => {
  const depthOf = (value: unknown): number =>
    typeof value === 'object' && value !== null
      ? 1 + Math.max(0, ...Object.values(value).map(depthOf))
      : 0
  const text = `${mark.repeat(10_000)}x`
  expect(depthOf(wholeOf(text))).toBeLessThan(500)
  expect(htmlOf(wholeOf(text))).toContain('x')
})
