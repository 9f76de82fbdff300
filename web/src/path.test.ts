import { expect, test } from 'vitest'
import { newestPath } from './path.ts'
import type { Message } from './stream/wire.ts'

function message(id: string, parent: string | null, created_at: number): Message {
  return {
    id,
    parent,
    created_at,
    chat: 'c',
    role: 'user',
    parts: [],
    run: null,
    last_id: null,
    state: 'done',
    finish: null,
    error: null,
    usage: null,
    timings: null,
    made_with: null,
    left_out: 0,
  }
}

function ids(messages: readonly Message[]): string {
  return newestPath(messages)
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
