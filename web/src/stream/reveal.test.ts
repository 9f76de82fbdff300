import { expect, test } from 'vitest'
import { boundary, Reveal, type Frames } from './reveal.ts'

const FRAME_MS = 1000 / 60

class FakeFrames implements Frames {
  now = 0
  still = false
  #run: ((now: number) => void) | null = null

  readonly request = (run: (now: number) => void): number => {
    this.#run = run
    return 1
  }
  readonly cancel = (): void => {
    this.#run = null
  }
  readonly isStill = (): boolean => this.still

  get isIdle(): boolean {
    return this.#run === null
  }

  next(): void {
    this.now += FRAME_MS
    const run = this.#run
    this.#run = null
    run?.(this.now)
  }
}

function reveal(frames: FakeFrames, from = 0): { seen: number[]; reveal: Reveal } {
  const seen = [from]
  return { seen, reveal: new Reveal(frames, from, (shown) => seen.push(shown)) }
}

test('a lump is spread evenly and is whole within the window', () => {
  const frames = new FakeFrames()
  const { seen, reveal: view } = reveal(frames)
  view.update('x'.repeat(80), frames.now)
  while (!frames.isIdle) frames.next()
  expect(frames.now).toBeLessThanOrEqual(120 + FRAME_MS)
  const steps = seen.slice(1).map((shown, i) => shown - (seen[i] ?? 0))
  expect(Math.max(...steps)).toBeLessThanOrEqual(14)
  expect(seen.at(-1)).toBe(80)
})

test.each([5, 40, 200, 2000])(
  'at %i characters a second nothing waits longer than the window',
  (rate) => {
    const frames = new FakeFrames()
    const { seen, reveal: view } = reveal(frames)
    const arrivals: number[] = []
    let text = ''
    for (let frame = 0; frame < 600; frame += 1) {
      while (text.length < (frames.now / 1000) * rate) {
        text += 'x'
        arrivals.push(frames.now)
      }
      view.update(text, frames.now)
      frames.next()
      const shown = seen.at(-1) ?? 0
      const oldest = arrivals[shown] ?? frames.now
      expect(frames.now - oldest).toBeLessThanOrEqual(120 + FRAME_MS)
    }
  },
)

test('what was there before does not move', () => {
  const frames = new FakeFrames()
  const { seen, reveal: view } = reveal(frames, 5)
  view.update('12345', 0)
  expect(frames.isIdle).toBe(true)
  view.update('123456', 0)
  frames.next()
  expect(Math.min(...seen)).toBe(5)
})

test('nothing moves for a hidden tab or a reader who wants no motion', () => {
  const frames = new FakeFrames()
  frames.still = true
  const { seen, reveal: view } = reveal(frames)
  view.update('all of it', 0)
  expect(seen.at(-1)).toBe(9)
  expect(frames.isIdle).toBe(true)
})

test('a text that was reset to a shorter one is shown as it is', () => {
  const frames = new FakeFrames()
  const { seen, reveal: view } = reveal(frames)
  view.update('long text', 0)
  view.all()
  view.update('new', 0)
  expect(seen.at(-1)).toBe(3)
})

test('no frame ends inside a character', () => {
  const text = 'a👩‍👩‍👧b🇨🇳e\u0301流👍🏽z'
  const ends = new Set([0])
  for (const { index, segment } of new Intl.Segmenter().segment(text))
    ends.add(index + segment.length)
  for (let from = 0, target = 1; target <= text.length; target += 1) {
    const end = boundary(text, from, target)
    expect(ends).toContain(end)
    expect(end).toBeGreaterThanOrEqual(target)
    if (target % 3 === 0) from = end
  }
})
