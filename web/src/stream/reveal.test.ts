import { expect, test } from 'vitest'
import { modeFor, Reveal, type Frames, type Mode, type Sample } from './reveal.ts'

const FRAME_MS = 1000 / 60

class FakeFrames implements Frames {
  time = 0
  hidden = false
  #run: ((now: number) => void) | null = null
  /** Milliseconds, of the last request. */
  pause = 0

  readonly request: Frames['request'] = (run, afterMs) => {
    this.#run = run
    this.pause = afterMs
    return () => void (this.#run = null)
  }
  readonly now = (): number => this.time
  readonly isHidden = (): boolean => this.hidden

  get isIdle(): boolean {
    return this.#run === null
  }

  next(ms = FRAME_MS): void {
    this.time += ms
    const run = this.#run
    this.#run = null
    run?.(this.time)
  }

  /** Run until nothing moves; returns how many milliseconds that took. */
  settle(): number {
    const from = this.time
    while (!this.isIdle) this.next()
    return this.time - from
  }
}

interface Viewing {
  readonly frames: FakeFrames
  readonly seen: number[]
  readonly samples: Sample[]
  readonly reveal: Reveal
}

function viewing(mode: Mode = 'smooth', text = ''): Viewing {
  const frames = new FakeFrames()
  const seen: number[] = []
  const samples: Sample[] = []
  const reveal = new Reveal({
    frames,
    mode,
    text,
    show: (length) => seen.push(length),
    onSample: (sample) => samples.push(sample),
  })
  return { frames, seen, samples, reveal }
}

/** The share of frames that are left out while `perSecond` characters flow. */
function leftOut(perSecond: number, mode: Mode): number {
  const { frames, reveal } = viewing(mode)
  let [text, paused, count] = ['', 0, 0]
  for (let arrivals = 0; arrivals < 200; arrivals += 1) {
    text += 'x'.repeat((perSecond * 2 * FRAME_MS) / 1_000)
    reveal.update(text)
    for (const _ of [1, 2]) {
      if (frames.isIdle) continue
      frames.next()
      count += 1
      if (frames.pause > 0) paused += 1
    }
  }
  return paused / count
}

test('frames are left out where each would bring several characters, and not too many', () => {
  expect(leftOut(480, 'smooth')).toBeGreaterThan(0.7)
  for (const perSecond of [60, 120, 900]) expect(leftOut(perSecond, 'smooth')).toBeLessThan(0.15)
  expect(leftOut(480, 'live')).toBe(0)
})

test('what was there before does not move', () => {
  const { frames, seen, reveal } = viewing('smooth', '12345')
  reveal.update('12345')
  expect(frames.isIdle).toBe(true)
  reveal.update('123456')
  frames.settle()
  expect(seen).toEqual([6])
})

test('the first character of an answer is in the next frame', () => {
  for (const mode of ['live', 'smooth', 'typewriter'] as const) {
    const { frames, seen, reveal } = viewing(mode)
    reveal.update('x'.repeat(4_000))
    frames.next()
    expect(seen).toHaveLength(1)
  }
})

test('a hidden tab shows everything, and nothing is replayed when it comes back', () => {
  const { frames, seen, reveal } = viewing()
  reveal.update('before ')
  frames.next()
  frames.hidden = true
  for (let second = 1; second <= 60; second += 1) {
    frames.time += 1_000
    reveal.update('before ' + 'meanwhile '.repeat(second))
  }
  expect(seen.at(-1)).toBe(607)
  frames.hidden = false
  reveal.update('before ' + 'meanwhile '.repeat(61), { isReplay: true })
  expect(seen.at(-1)).toBe(617)
  expect(frames.isIdle).toBe(true)
})

test('what a lost connection brings when it is back is not animated, what comes then is', () => {
  const { frames, seen, reveal } = viewing('smooth', 'so far')
  reveal.update('so far' + ' and much more'.repeat(50), { isReplay: true })
  expect(seen).toEqual([706])
  reveal.update('so far' + ' and much more'.repeat(52))
  expect(seen).toEqual([706])
  frames.settle()
  expect(seen.at(-1)).toBe(734)
})

test('a window without frames does not fall behind', () => {
  const { frames, seen, reveal } = viewing()
  reveal.update('one')
  frames.time += 1_500
  reveal.update('one, two')
  expect(seen).toEqual([8])
})

test('a text that was replaced by a shorter one is shown as it is', () => {
  const { seen, reveal } = viewing()
  reveal.update('long text')
  reveal.all()
  reveal.update('new')
  expect(seen.at(-1)).toBe(3)
})

test('an answer that ends is whole a fifth of a second later, in frames', () => {
  const { frames, reveal } = viewing()
  reveal.update('x'.repeat(4_000), { isWhole: true })
  expect(frames.settle()).toBeLessThanOrEqual(200 + FRAME_MS)
  reveal.update('x'.repeat(4_000), { isWhole: true })
  expect(frames.isIdle).toBe(true)
})

test('a typewriter takes its time for letters, Han and punctuation, and types on behind the end', () => {
  const { frames, seen, reveal } = viewing('typewriter')
  reveal.update('ab, 流式。c', { isWhole: true })
  // Five narrow, two wide and a full stop: the first is there at once, and two marks are paused after.
  const typed = 30 + 30 + (30 + 100) + 50 + 50 + 30 + (30 + 100)
  const took = frames.settle()
  expect(took).toBeGreaterThanOrEqual(typed)
  expect(took).toBeLessThanOrEqual(typed + 2 * FRAME_MS)
  expect(seen).toEqual([1, 2, 3, 4, 5, 6, 7, 8])
})

test('a reader in a hurry has all of it, and no typist from then on', () => {
  const { frames, seen, reveal } = viewing('typewriter')
  reveal.update('x'.repeat(500))
  frames.next()
  reveal.hurry()
  expect(seen.at(-1)).toBe(500)
  expect(reveal.isBehind).toBe(false)
  reveal.update('x'.repeat(900))
  frames.settle()
  expect(frames.time).toBeLessThan(1_000)
})

test('nothing runs when nobody draws any more', () => {
  const { frames, reveal } = viewing()
  reveal.update('text')
  reveal.stop()
  expect(frames.isIdle).toBe(true)
})

test('samples tell what has arrived and what is in view', () => {
  const { frames, samples, reveal } = viewing()
  reveal.update('text')
  frames.settle()
  expect(samples[0]).toEqual({ now: 0, arrived: 4, shown: 0 })
  expect(samples.at(-1)).toEqual({ now: frames.time, arrived: 4, shown: 4 })
})

test('less motion is wanted, unless a mode was chosen', () => {
  expect(modeFor(null, true)).toBe('off')
  expect(modeFor(null, false)).toBe('smooth')
  expect(modeFor('typewriter', true)).toBe('typewriter')
})
