import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import type { Message } from '../stream/wire.ts'
import { Acts, type Around } from './acts.ts'

const QUESTION = {
  id: 'q',
  parent: null,
  parts: [{ type: 'text', text: 'Why?' }],
} as unknown as Message
const ANSWERS = ['a', 'b', 'c'].map((id) => ({ id, parent: 'q', parts: [] }) as unknown as Message)
const [, ANSWER] = ANSWERS

let told: string[]
let edit: { of: string; text: string } | null
let panel: { dialog: string | null }
let acts: Acts

beforeEach(() => {
  told = []
  edit = null
  panel = { dialog: null }
  const say = (word: string) => (given?: unknown) =>
    void told.push(given === undefined ? word : `${word} ${given}`)
  const around: Around = {
    onAsked: say('asked'),
    onStay: say('stay'),
    onDone: say('done'),
    onNew: say('new'),
  }
  const conversation = {
    chat: 'chat',
    waiting: [{ key: 'waits' }],
    siblingsOf: () => ANSWERS,
    message: (id: string) => (id === 'q' ? QUESTION : null),
    open: say('open'),
    writing: {
      get edit() {
        return edit
      },
      keepEdit: (now: typeof edit) => void (edit = now),
      askEdited: say('askEdited'),
      regenerate: ({ id }: Message) => told.push(`regenerate ${id}`),
      carryOn: ({ id }: Message) => told.push(`carryOn ${id}`),
    },
  }
  const list = { querySelector: () => null } as unknown as HTMLElement
  vi.stubGlobal('CSS', { escape: (id: string) => id })
  acts = new Acts(conversation as never, panel as never, around, () => list)
})

afterEach(() => {
  vi.unstubAllGlobals()
})

function help(remedy: Parameters<Acts['help']>[0]): void {
  if (ANSWER) acts.help(remedy, ANSWER)
}

test('a message knows which of how many it is, and at the last there is nowhere to go', () => {
  if (!ANSWER || !ANSWERS[2]) throw new Error('there are three')
  expect(acts.versionOf(ANSWER)).toEqual({ at: 1, count: 3 })
  acts.walkFrom(ANSWERS[2], 1)
  expect(told).toEqual([])
})

test('the same again and another answer are asked for, and looked at', () => {
  help('again')
  help('anew')
  expect(told).toEqual(['regenerate b', 'asked', 'done', 'regenerate b', 'asked', 'done'])
})

test('after a failure its question can be edited, or asked in a chat of its own', () => {
  help('edit')
  expect(edit).toEqual({ of: 'q', text: 'Why?' })
  help('newChat')
  help('settings')
  help('reload')
  expect([told, panel.dialog]).toEqual([['new Why?', 'open chat'], 'settings'])
})

test('what was edited comes into view where it is asked at once, and not where it waits', () => {
  edit = { of: 'q', text: 'Why not?' }
  acts.sendEdited('Why not?')
  edit = { of: 'waits', text: 'And then?' }
  acts.sendEdited('And then?')
  expect(told).toEqual(['askEdited Why not?', 'asked', 'done', 'askEdited And then?', 'done'])
})

test('an edit that is given up is forgotten', async () => {
  edit = { of: 'q', text: 'Why not?' }
  await acts.cancelEdit('q')
  expect(edit).toBeNull()
})
