import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { MemoryStorage } from '../storage.fake.ts'
import type { Message } from '../stream/wire.ts'
import { keepChoice, keptChoice } from './choice.ts'
import { keepDraft, keepEdit, keptDraft, keptEdit, moveToChat } from './drafts.ts'

function newTab(): void {
  vi.stubGlobal('sessionStorage', new MemoryStorage())
}

beforeEach(() => {
  vi.stubGlobal('localStorage', new MemoryStorage())
  newTab()
})

afterEach(() => {
  vi.unstubAllGlobals()
})

test('a new tab begins with what was typed last, and each keeps its own', () => {
  keepDraft('c', 'first')
  const first = sessionStorage
  newTab()
  expect(keptDraft('c')).toBe('first')
  keepDraft('c', 'second')
  vi.stubGlobal('sessionStorage', first)
  expect(keptDraft('c')).toBe('first')
  keepDraft('c', '')
  newTab()
  expect(keptDraft('c')).toBe('second')
})

test('what was sent is no draft any more, whoever had typed it', () => {
  keepDraft('c', 'typed')
  newTab()
  expect(keptDraft('c')).toBe('typed')
  keepDraft('c', '')
  newTab()
  expect(keptDraft('c')).toBe('')
})

test('what was typed before its chat was made belongs to it', () => {
  keepDraft(null, 'typed')
  keepEdit(null, { of: 'k', text: 'edited' })
  moveToChat('c')
  expect([keptDraft('c'), keptDraft(null)]).toEqual(['typed', ''])
  expect([keptEdit('c'), keptEdit(null)]).toEqual([{ of: 'k', text: 'edited' }, null])
})

function message(id: string, parent: string | null, created_at: number): Message {
  return { id, parent, created_at } as Message
}

const TREE = [message('q', null, 1), message('a', 'q', 2), message('b', 'q', 3)]

test('a choice holds while nothing is newer in another branch', () => {
  expect(keptChoice('c', TREE)).toBeNull()
  keepChoice('c', TREE, 'a')
  expect(keptChoice('c', TREE)).toBe('a')
  expect(keptChoice('c', [...TREE, message('n', 'a', 4)])).toBe('a')
  expect(keptChoice('c', [...TREE, message('n', 'b', 4)])).toBeNull()
})
