/** The promises of the page about how text comes into view, over made-up and recorded arrivals. */
import { afterAll, describe, expect, test } from 'vitest'
import {
  bursts,
  dropping,
  dump,
  endingInBurst,
  hertz,
  measure,
  play,
  recorded,
  scripted200,
  speculative,
  stalled,
  steady,
  textOf,
  type Clock,
  type Measured,
} from './traces.fake.ts'

const CLOCKS: readonly (readonly [string, Clock])[] = [
  ['60 Hz', hertz(60)],
  ['120 Hz', hertz(120)],
  ['30 Hz', hertz(30)],
  ['60 Hz with drops', dropping(60)],
]
const LANGUAGES = ['en', 'zh'] as const
const FAST = [
  ...[20, 40, 80, 200].flatMap((rate) => LANGUAGES.map((l) => steady(rate, l, 12))),
  scripted200(),
]
const SLOW = [5, 6, 10, 15].flatMap((rate) => LANGUAGES.map((l) => steady(rate, l, 20)))
const UNEVEN = [
  bursts(80, 470, 40),
  speculative(100, 10),
  speculative(200, 10),
  stalled(steady(40, 'en', 20), 2_000, 1_500),
  stalled(steady(200, 'zh', 20), 3_000, 5_000),
  dump(4_000),
  endingInBurst(80),
  endingInBurst(600),
]
const RECORDED = recorded()
const ALL = [...FAST, ...SLOW, ...UNEVEN, ...RECORDED]

const table = ALL.map((trace) => measure(trace, 'smooth', hertz(60)))
afterAll(() => {
  // `npm run table` prints what was measured; a test run has no use for it.
  if (import.meta.env.MODE === 'table') console.log(asTable(table))
})

describe.each(CLOCKS)('on a screen of %s', (_name, clock) => {
  test.each(FAST)('$name: nobody notices the lag', (trace) => {
    const { p95, max } = measure(trace, 'smooth', clock)
    expect(p95).toBeLessThanOrEqual(100 + frameLag(clock))
    expect(max).toBeLessThanOrEqual(150 + frameLag(clock))
  })

  test.each(SLOW)('$name: a slow engine is bridged', (trace) => {
    const { p95, max } = measure(trace, 'smooth', clock)
    expect(p95).toBeLessThanOrEqual(400)
    expect(max).toBeLessThanOrEqual(450)
  })

  test.each(ALL)('$name: bounded lag, and no tail', (trace) => {
    const { first, max, tail } = measure(trace, 'smooth', clock)
    expect(first).toBeLessThanOrEqual(2 * longestFrame(clock))
    expect(max).toBeLessThanOrEqual(450)
    expect(tail).toBeLessThanOrEqual(250)
  })
})

test.each(CLOCKS)('bursts flow on a screen of %s', (_name, clock) => {
  // In 100 ms there are two or three slow frames, so that even an even flow differs by one.
  const target = frameLag(clock) > 1 ? 0.45 : 0.35
  expect(measure(bursts(80, 470, 40), 'smooth', clock).evenness).toBeLessThanOrEqual(target)
  expect(measure(bursts(80, 470, 40), 'off', clock).evenness).toBeGreaterThan(1.5)
})

test.each([...FAST, ...SLOW, bursts(80, 470, 40), speculative(200, 10), ...RECORDED])(
  '$name: no paint is larger than an eye can follow',
  (trace) => {
    expect(measure(trace, 'smooth', hertz(60)).largestPaint).toBeLessThanOrEqual(25)
  },
)

test('a fast answer is drawn in every other frame, a slow one whenever something is new', () => {
  expect(measure(scripted200(), 'smooth', hertz(60)).perSecond).toBeLessThanOrEqual(32)
  expect(measure(steady(200, 'zh', 12), 'smooth', hertz(60)).perSecond).toBeLessThanOrEqual(32)
  expect(measure(steady(40, 'en', 12), 'smooth', hertz(60)).perSecond).toBeGreaterThan(50)
  expect(measure(scripted200(), 'live', hertz(60)).perSecond).toBeGreaterThan(50)
})

test('frames that are left out are not made up for by a large one', () => {
  const seen = play(scripted200(), 'smooth', hertz(60)).map(({ length }) => length)
  const steps = seen.slice(1).map((length, at) => length - (seen[at] ?? 0))
  expect(Math.max(...steps)).toBeLessThanOrEqual(24)
})

test.each(ALL)('$name: live is sooner, off is at once', (trace) => {
  const smooth = measure(trace, 'smooth', hertz(60))
  const live = measure(trace, 'live', hertz(60))
  expect(live.max).toBeLessThanOrEqual(150)
  expect(live.p95).toBeLessThanOrEqual(smooth.p95 + 1)
  expect(measure(trace, 'off', hertz(60)).max).toBe(0)
})

test.each(ALL)('$name: the view only grows, ends between graphemes, and ends whole', (trace) => {
  const seen = play(trace, 'smooth', hertz(60)).map(({ length }) => length)
  const text = textOf(trace)
  const ends = new Set([...new Intl.Segmenter().segment(text)].map(({ index }) => index))
  expect(seen).toEqual([...seen].sort((a, b) => a - b))
  expect(seen.at(-1)).toBe(text.length)
  expect(seen.slice(0, -1).filter((length) => !ends.has(length))).toEqual([])
})

/** What a screen slower than 60 Hz adds, whatever is shown on it. */
function frameLag(clock: Clock): number {
  return Math.max(0, longestFrame(clock) - 1000 / 60)
}

function longestFrame(clock: Clock): number {
  const gaps = Array.from({ length: 200 }, (_, frame) => clock(frame + 1) - clock(frame))
  return Math.max(...gaps)
}

function asTable(rows: readonly Measured[]): string {
  const head = [
    'arrivals',
    'first',
    'lag p95',
    'lag max',
    'tail',
    'evenness',
    'largest paint',
    'draws a second',
  ]
  const body = rows.map(({ name, first, p95, max, tail, evenness, largestPaint, perSecond }) => [
    name,
    ...[first, p95, max, tail].map((ms) => `${Math.round(ms)} ms`),
    evenness.toFixed(2),
    `${largestPaint}`,
    perSecond.toFixed(1),
  ])
  const lines = [head, head.map(() => '---'), ...body].map((cells) => `| ${cells.join(' | ')} |`)
  return lines.join('\n')
}
