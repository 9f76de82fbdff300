import { expect, test } from 'vitest'
import { Chance } from './markdown/answers.fake.ts'
import { GrowingText } from './text.ts'

const SEED = 7

test(`reads as the string does that it is, however it has grown (seed ${SEED})`, () => {
  const chance = new Chance(SEED)
  let [text, grown] = ['', GrowingText.of('')]
  for (let step = 0; step < 400; step += 1) {
    const piece = '墨a'.repeat(chance.below(step % 50 === 0 ? 3_000 : 12))
    text += piece
    grown = grown.grow(piece)
    const [from, to] = [chance.below(text.length + 2), chance.below(text.length + 2)]
    expect(grown.length).toBe(text.length)
    expect(grown.slice(from, to)).toBe(from < to ? text.slice(from, to) : '')
  }
  expect(grown.slice(0)).toBe(text)
  expect(String(grown)).toBe(text)
})

test('growing leaves the text before it as it was', () => {
  const before = GrowingText.of('a')
  const [one, other] = [before.grow('b'), before.grow('c')]
  expect([before, one, other].map(String)).toEqual(['a', 'ab', 'ac'])
})

test('tells what goes on from what is another text', () => {
  const begun = GrowingText.of('ab')
  const grown = begun.grow('c')
  expect(grown.continues(begun, 2)).toBe(true)
  expect(begun.continues(grown, 3)).toBe(false)
  expect(begun.grow('d').continues(grown, 3)).toBe(false)
  expect(GrowingText.of('abcd').continues(grown, 3)).toBe(true)
  expect(GrowingText.of('abd').continues(grown, 3)).toBe(false)
})
