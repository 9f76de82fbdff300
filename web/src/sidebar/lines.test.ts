import { expect, test, vi } from 'vitest'
import { words } from '../i18n.ts'
import { chat } from './chats.fake.ts'
import { CHAT_HEIGHT, linesOf, near, SPAN_HEIGHT } from './lines.ts'
import { msUntilTomorrow, spanName, spansAt } from './spans.ts'

const NOON = new Date(2026, 2, 29, 12)

function at(...when: [number, number, number, number?, number?]): number {
  return new Date(...when).getTime() / 1_000
}

test.each([
  [at(2026, 2, 29, 0, 0), 'today', 'Today', '今天'],
  [at(2026, 2, 30, 9), 'today', 'Today', '今天'],
  [at(2026, 2, 28, 23, 59), 'yesterday', 'Yesterday', '昨天'],
  [at(2026, 2, 28, 0, 0), 'yesterday', 'Yesterday', '昨天'],
  [at(2026, 2, 27, 23, 59), 'week', 'Previous 7 days', '过去 7 天'],
  [at(2026, 2, 22, 0, 0), 'week', 'Previous 7 days', '过去 7 天'],
  [at(2026, 2, 21, 23, 59), '2026-03', 'March', '三月'],
  [at(2026, 0, 1), '2026-01', 'January', '一月'],
  [at(2025, 11, 31, 23, 59), '2025-12', 'December 2025', '2025年12月'],
])('%d is %s', (seconds, span, english, chinese) => {
  expect(spansAt(NOON)(seconds)).toBe(span)
  expect(spanName(span, NOON, words.en, 'en')).toBe(english)
  expect(spanName(span, NOON, words.zh, 'zh')).toBe(chinese)
})

test.each(['Europe/Berlin', 'Asia/Shanghai', 'America/Los_Angeles', 'Pacific/Apia'])(
  'days are those of the reader in %s, short ones too',
  (zone) => {
    vi.stubEnv('TZ', zone)
    for (let hour = 0; hour < 24 * 400; hour += 7) {
      const now = new Date(2026, 0, 1, hour, 30)
      const tomorrow = new Date(now.getTime() + msUntilTomorrow(now))
      expect([tomorrow.getHours(), tomorrow.getMinutes()]).toEqual([0, 0])
      expect(spansAt(tomorrow)(now.getTime() / 1_000)).toBe('yesterday')
      expect(spansAt(now)(tomorrow.getTime() / 1_000 - 1)).toBe('today')
    }
    vi.unstubAllEnvs()
  },
)

const chats = [
  chat('a', at(2026, 2, 29, 11)),
  chat('b', at(2026, 2, 29, 10)),
  chat('c', at(2026, 2, 28, 10)),
]

test('each span of time has one heading above its chats', () => {
  const { lines, height } = linesOf(chats, NOON)
  expect(lines.map(({ key }) => key)).toEqual(['today', 'a', 'b', 'yesterday', 'c'])
  expect(lines.map(({ top }) => top)).toEqual([
    0,
    SPAN_HEIGHT,
    SPAN_HEIGHT + CHAT_HEIGHT,
    SPAN_HEIGHT + 2 * CHAT_HEIGHT,
    2 * (SPAN_HEIGHT + CHAT_HEIGHT),
  ])
  expect(height).toBe(2 * SPAN_HEIGHT + 3 * CHAT_HEIGHT)
})

test('only what is near the view is drawn, and what has the focus', () => {
  const many = Array.from({ length: 5_000 }, (_, n) =>
    chat(`c${n}`, at(2026, 2, 29, 11) - n * 9_000),
  )
  const all = linesOf(many, NOON)
  for (let from = -50; from < all.height + 50; from += 333) {
    const drawn = near(all, from, from + 40)
    expect(drawn.length).toBeLessThan(30)
    const isSeen = all.lines.filter(({ top }) => top + CHAT_HEIGHT > from && top < from + 40)
    expect(drawn).toEqual(expect.arrayContaining(isSeen))
  }
  expect(near(all, 0, 40, ['c4000']).at(-1)?.key).toBe('c4000')
  expect(near(all, all.height - 40, all.height, ['c4', 'c3'])[0]?.key).toBe('c3')
  expect(near(all, 0, 40, ['c3'])).toEqual(near(all, 0, 40))
  expect(near(all, 0, 40, ['gone'])).toEqual(near(all, 0, 40))
})
