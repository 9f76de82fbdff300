import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { MemoryStorage } from '../storage.fake.ts'
import type { Run } from '../stream/wire.ts'
import { Attention } from './attention.svelte.ts'
import { READY, run } from './chats.fake.ts'

let kept: MemoryStorage

beforeEach(() => void vi.stubGlobal('localStorage', (kept = new MemoryStorage())))
afterEach(() => void vi.unstubAllGlobals())

function snapshot(attention: Attention, ...runs: Run[]): void {
  attention.hear({ type: 'snapshot', runs, engine: READY })
}

function hear(attention: Attention, ...runs: Run[]): void {
  for (const run of runs) attention.hear({ type: 'run', run })
}

test('a chat is marked while it is being answered', () => {
  const attention = new Attention()
  snapshot(attention, run('r1', 'a'), run('r2', null))
  expect([...attention.living]).toEqual(['a'])
  hear(attention, run('r3', 'b', 'queued'), run('r4', 'a'), run('r1', 'a', 'done'))
  expect([...attention.living].sort()).toEqual(['a', 'b'])
  hear(attention, run('r4', 'a', 'done'), run('r3', 'b', 'failed'))
  expect([...attention.living]).toEqual([])
})

test('an answer that ends elsewhere is told and marked until the reader looks', () => {
  const attention = new Attention()
  attention.show('shown')
  snapshot(attention, run('r1', 'a'), run('r2', 'shown'), run('r3', 'b'))
  hear(attention, run('r2', 'shown', 'done'))
  expect(attention.finished).toBeNull()
  hear(attention, run('r1', 'a', 'done'))
  expect(attention.finished).toEqual({ chat: 'a', isFailed: false })
  hear(attention, run('r3', 'b', 'failed'))
  expect(attention.finished).toEqual({ chat: 'b', isFailed: true })
  expect([...attention.unread]).toEqual(['a', 'b'])
  attention.show('b')
  expect(attention.finished).toBeNull()
  expect([...attention.unread]).toEqual(['a'])
  expect([...new Attention().unread]).toEqual(['a'])
})

test('who stops an answer is not told of its end, nor is anybody of one that was deleted', () => {
  const attention = new Attention()
  snapshot(attention, run('r1', 'a'), run('r2', 'b'))
  hear(attention, run('r1', 'a', 'stopped'), run('r2', 'b', 'done'))
  expect([...attention.unread]).toEqual(['b'])
  attention.hear({ type: 'chat', id: 'b', chat: null })
  expect([...attention.unread]).toEqual([])
  expect(attention.finished).toBeNull()
})

test('what ended while no page listened is found when one does', () => {
  snapshot(new Attention(), run('r1', 'a'), run('r2', 'b'))
  const later = new Attention()
  snapshot(later, run('r2', 'b'))
  expect([...later.unread]).toEqual(['a'])
  expect(later.finished).toBeNull()
})

test('what one tab has shown is not new in another that was away', () => {
  const [away, here] = [new Attention(), new Attention()]
  here.show('a')
  snapshot(away, run('r1', 'a'))
  snapshot(here, run('r1', 'a'))
  hear(here, run('r1', 'a', 'done'))
  snapshot(away)
  expect([...away.unread]).toEqual([])
})

test('what another tab has shown loses its mark here', () => {
  const [one, other] = [new Attention(), new Attention()]
  snapshot(one, run('r1', 'a'))
  hear(one, run('r1', 'a', 'done'))
  other.readAgain()
  expect([...other.unread]).toEqual(['a'])
  other.show('a')
  one.readAgain()
  expect([...one.unread]).toEqual([])
  expect(one.finished).toBeNull()
})

test('what is kept has a bound', () => {
  const attention = new Attention()
  for (let n = 0; n < 1_000; n += 1) {
    hear(attention, run(`r${n}`, `c${n}`), run(`r${n}`, `c${n}`, 'done'))
  }
  expect(attention.unread.size).toBe(200)
  expect(attention.unread.has('c999')).toBe(true)
  expect(kept.getItem('inkstream.living')).toBeNull()
})
