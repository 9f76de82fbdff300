import { expect, test, vi } from 'vitest'
import { GrowingText } from '../stream/text.ts'
import { estimateGrowing, estimateTokens } from './estimate.ts'

const TEXT = 'The river keeps its own time. 墨水在纸上慢慢散开。'.repeat(60)

test('a text that grows is estimated as it would be whole, also when an earlier state comes again', () => {
  const first = GrowingText.of(TEXT.slice(0, 1_500))
  const grown = first.grow(TEXT.slice(1_500))
  for (const text of [first, grown, first, first.grow('another end: 墨')])
    expect(estimateGrowing(text)).toBe(estimateTokens(text.toString()))
})

test('only what is new of it is looked at', () => {
  const first = GrowingText.of(TEXT)
  estimateGrowing(first)
  const grown = first.grow('more')
  const slice = vi.spyOn(grown, 'slice')
  estimateGrowing(grown)
  expect(slice).toHaveBeenCalledExactlyOnceWith(TEXT.length)
})
