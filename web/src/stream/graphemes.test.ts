import { expect, test } from 'vitest'
import { GraphemeQueue } from './graphemes.ts'
import { chance } from './traces.fake.ts'

const COSTS = { narrow: 1, wide: 2, pauseAfterComma: 2, pauseAfterSentence: 5 }
const HARD = 'a👩‍👩‍👧‍👦b🇨🇳🇺🇸e\u0301流👍🏽\r\nक्षि한글🏳️‍🌈z'

/** The ends of all graphemes as they are taken one by one. */
function ends(queue: GraphemeQueue): number[] {
  const taken: number[] = []
  for (let cost = queue.costOf(1); cost !== null; cost = queue.costOf(1)) {
    taken.push(queue.take(cost) ?? -1)
  }
  return taken
}

function whole(text: string): number[] {
  return [...new Intl.Segmenter().segment(text)].map(({ index, segment }) => index + segment.length)
}

test('a text that comes in pieces is cut where the whole one is', () => {
  const seed = Date.now() & 0xffff
  const random = chance(seed)
  for (let round = 0; round < 200; round += 1) {
    const queue = new GraphemeQueue(COSTS)
    // The server never cuts inside a character, but does between those of a grapheme.
    const characters = [...HARD]
    for (let at = 0; at < characters.length;) {
      at += 1 + Math.floor(random() * 5)
      queue.extend(characters.slice(0, at).join(''))
    }
    expect([...new Set(ends(queue))], `seed ${seed}, round ${round}`).toEqual(whole(HARD))
  }
})

test('a grapheme that grows behind what is shown is completed at no cost', () => {
  const queue = new GraphemeQueue(COSTS)
  queue.extend('ab')
  expect(queue.take(2)).toBe(2)
  queue.extend('ab\u0301')
  expect(queue.waiting).toBe(1)
  expect(queue.take(2)).toBe(3)
})

test('a flag that was shown in halves is whole when the other half comes', () => {
  const queue = new GraphemeQueue(COSTS)
  queue.extend('🇨')
  expect(queue.take(2)).toBe(2)
  queue.extend('🇨🇳🇺🇸')
  expect(ends(queue)).toEqual([4, 8])
})

test('what was skipped counts for nothing, but what grows on it does', () => {
  const queue = new GraphemeQueue(COSTS)
  queue.extend('some of it')
  queue.skipTo('some of it and 🇨🇳')
  expect(queue.waiting).toBe(0)
  queue.extend('some of it and 🇨🇳🇺')
  expect(ends(queue)).toEqual(['some of it and 🇨🇳🇺'.length])
})

test.each([
  ['ab', 1],
  ['流式', 2],
  ['한글', 2],
  ['a👍🏽', 2],
  [',b', 3],
  ['.b', 6],
  ['。流', 7],
  ['\nb', 6],
])('%j costs %i at its last grapheme', (text, cost) => {
  const queue = new GraphemeQueue(COSTS)
  const [first = ''] = [...new Intl.Segmenter().segment(text)].map(({ segment }) => segment)
  queue.extend(first)
  const before = queue.total
  queue.extend(text)
  expect(queue.total - before).toBe(cost)
})

test('a long text goes through without being kept', () => {
  const queue = new GraphemeQueue(COSTS)
  let text = ''
  for (let round = 0; round < 5_000; round += 1) {
    text += 'word '
    queue.extend(text)
    expect(queue.take(queue.total)).toBe(text.length)
  }
  expect(queue.waiting).toBe(0)
})
