import { expect, test } from 'vitest'
import type { Message } from '../stream/wire.ts'
import { message as messageWith } from './messages.fake.ts'
import { byParent, merged, pathThrough } from './tree.ts'

function message(id: string, parent: string | null, created_at: number): Message {
  return messageWith({ id, parent, created_at, role: 'user' })
}

function ids(messages: readonly Message[], through: string | null = null): string {
  return pathThrough(messages, through)
    .map(({ id }) => id)
    .join(' ')
}

test('an empty chat shows nothing', () => {
  expect(ids([])).toBe('')
})

test('the newest branch is shown from its root', () => {
  const messages = [
    message('q', null, 1),
    message('a', 'q', 2),
    message('b', 'q', 5),
    message('c', 'a', 4),
  ]
  expect(ids(messages)).toBe('q b')
})

test('of two that came at once the later in the list is newer', () => {
  expect(ids([message('q', null, 1), message('a', 'q', 2), message('b', 'q', 2)])).toBe('q b')
})

// q ─ a ─ r ─ b        (asked behind a)
//       └ s ─ c        (the same question in other words)
//   └ d                (another answer to the first question)
const BRANCHES = [
  message('q', null, 1),
  message('a', 'q', 2),
  message('r', 'a', 3),
  message('b', 'r', 4),
  message('d', 'q', 5),
  message('s', 'a', 6),
  message('c', 's', 7),
]

test.each([
  [null, 'q a s c'],
  ['q', 'q a s c'],
  ['a', 'q a s c'],
  ['r', 'q a r b'],
  ['d', 'q d'],
  ['gone', 'q a s c'],
])('the path through %s is %s', (through, path) => {
  expect(ids(BRANCHES, through)).toBe(path)
})

test('what stands in one another’s place comes in its order', () => {
  const families = byParent(BRANCHES)
  expect(families.get('a')?.map(({ id }) => id)).toEqual(['r', 's'])
  expect(families.get(null)?.map(({ id }) => id)).toEqual(['q'])
  expect(families.get('c')).toBeUndefined()
})

test('what was read does not take back what is known to have come since', () => {
  const running = { ...message('a', 'q', 2), run: 'r1', state: 'running' as const }
  const ended = { ...running, state: 'done' as const }
  const again = { ...running, run: 'r2' }
  expect(merged([ended], [running], null)).toEqual([ended])
  expect(merged([running], [ended], null)).toEqual([ended])
  expect(merged([running], [ended], 'a')).toEqual([running])
  expect(merged([ended], [again], null)).toEqual([again])
  expect(merged([], [running], null)).toEqual([running])
})
