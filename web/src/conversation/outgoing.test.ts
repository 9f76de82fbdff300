import { expect, test } from 'vitest'
import type { Message } from '../stream/wire.ts'
import {
  behindPath,
  cutAt,
  inChat,
  reworded,
  withoutTaken,
  withoutWithdrawn,
  type After,
  type Outgoing,
} from './outgoing.ts'

function question(key: string, parent: string | null, after: After | null = null): Outgoing {
  return { key, chat: 'c', ask: { content: `${key}?`, parent }, after }
}

/** Two that wait, one behind the other, for the answer `a`. */
const LINE = [question('1', 'a', { answer: 'a' }), question('2', null, { asked: '1' })]
const AGAIN: Outgoing = { key: 'again', chat: 'c', ask: { regenerate: 'a' }, after: null }

const PATH = ['q', 'a', 'r', 'b'].map(
  (id, at) => ({ id, role: at % 2 ? 'assistant' : 'user' }) as Message,
)

function ids(path: readonly Message[]): string {
  return path.map(({ id }) => id).join(' ')
}

function keys(line: readonly Outgoing[]): string {
  return line.map(({ key }) => key).join(' ')
}

test('what waits for a question that was taken waits for its answer', () => {
  expect(withoutTaken(LINE, '1', 'b')).toEqual([question('2', 'b', { answer: 'b' })])
})

test('what waits for an answer waits for the one that takes its place', () => {
  const [first, second] = withoutTaken([...LINE, AGAIN], 'again', 'new')
  expect(first).toEqual(question('1', 'new', { answer: 'new' }))
  expect(second).toEqual(LINE[1])
})

test('what waits for a question that is taken back takes its place', () => {
  expect(withoutWithdrawn(LINE, '1')).toEqual([question('2', 'a', { answer: 'a' })])
  expect(withoutWithdrawn(LINE, '2')).toEqual([LINE[0]])
  expect(withoutWithdrawn([...LINE, AGAIN], 'again')).toEqual(LINE)
})

test('another wording is another question, in the same place', () => {
  const [first, second] = reworded(LINE, '1', 'Better?', 'new')
  expect(first).toEqual({
    ...LINE[0],
    key: 'new',
    ask: { content: 'Better?', parent: 'a' },
    isEdited: false,
  })
  expect(second?.after).toEqual({ asked: 'new' })
})

test('a chat is made for all that had none', () => {
  const line = [{ ...question('1', null), chat: null }, question('2', null)]
  expect(inChat(line, 'new').map(({ chat }) => chat)).toEqual(['new', 'c'])
})

test.each([
  ['nothing', [], 'q a r b', ''],
  ['a question behind the end', [question('1', 'b')], 'q a r b', '1'],
  ['an edited question', [question('1', 'a')], 'q a', '1'],
  ['the first question, edited', [question('1', null)], '', '1'],
  ['another answer', [AGAIN], 'q', 'again'],
  ['more of an answer', [{ ...AGAIN, ask: { continue: 'b' } }], 'q a r b', 'again'],
  ['what waits', [question('1', 'b', { answer: 'b' })], 'q a r b', '1'],
  ['what waits in another branch', LINE, 'q a r b', ''],
  ['what is sent in another branch', [question('1', 'x')], 'q a r b', ''],
] as const)(
  'with %s on its way, what is shown is it and what it follows',
  (_, line, path, shown) => {
    const cut = cutAt(PATH, line)
    expect(ids(cut)).toBe(path)
    expect(keys(behindPath(cut, line))).toBe(shown)
  },
)

test('a whole line is shown behind what it waits for', () => {
  expect(keys(behindPath(PATH.slice(0, 2), LINE))).toBe('1 2')
  expect(keys(behindPath([], [question('1', null), question('2', null, { asked: '1' })]))).toBe(
    '1 2',
  )
})
