import { expect, test } from 'vitest'
import { polyline, Series, WINDOW_MS } from './series.ts'

test('lag is how long the next character has waited, and the longest is remembered', () => {
  const series = new Series()
  series.add({ now: 0, arrived: 10, shown: 0 })
  series.add({ now: 50, arrived: 10, shown: 5 })
  expect(series.lagAt(60)).toBe(60)
  series.add({ now: 70, arrived: 20, shown: 5 })
  series.add({ now: 80, arrived: 20, shown: 12 })
  expect(series.lagAt(90)).toBe(20)
  series.add({ now: 100, arrived: 20, shown: 20 })
  expect(series.lagAt(500)).toBe(0)
  expect(series.longestLag).toBe(80)
})

test('speed counts from the first arrival', () => {
  const series = new Series()
  expect(series.speed).toEqual({ characters: 0, perSecond: 0 })
  series.add({ now: 1_000, arrived: 10, shown: 0 })
  series.add({ now: 3_000, arrived: 110, shown: 0 })
  expect(series.speed).toEqual({ characters: 110, perSecond: 50 })
})

test('a shorter text is another one', () => {
  const series = new Series()
  series.add({ now: 0, arrived: 100, shown: 0 })
  series.add({ now: 500, arrived: 3, shown: 3 })
  expect(series.speed.characters).toBe(3)
  expect(series.longestLag).toBe(0)
})

test('what is older than the window is forgotten', () => {
  const series = new Series()
  for (let now = 0; now <= 3 * WINDOW_MS; now += 100) series.add({ now, arrived: now, shown: now })
  expect(series.samples.length).toBeLessThanOrEqual(WINDOW_MS / 100 + 2)
})

test('the newest stands at the right, the longest at the top', () => {
  const samples = [
    { now: 0, arrived: 10, shown: 0 },
    { now: WINDOW_MS / 2, arrived: 20, shown: 10 },
    { now: WINDOW_MS, arrived: 20, shown: 20 },
  ]
  const box = { width: 100, height: 50 }
  expect(polyline(samples, 'arrived', box)).toBe('0.0,25.0 50.0,0.0 100.0,0.0')
  expect(polyline(samples, 'shown', box)).toBe('0.0,50.0 50.0,25.0 100.0,0.0')
  expect(polyline([], 'shown', box)).toBe('')
})
