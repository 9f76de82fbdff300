import { expect, test } from 'vitest'
import { blank, fold, textOf } from './fold.ts'
import type { Note, RunEvent } from './wire.ts'

function text(seq: number, value: string, channel?: 'thinking'): RunEvent {
  return {
    kind: 'text',
    id: `1:${seq}`,
    seq,
    data: channel ? { text: value, channel } : { text: value },
  }
}

const started: RunEvent = { kind: 'started', id: '1:1', seq: 1, data: { model: 'm', seed: 1 } }
const queued: Note = { key: 'queued', place: 2 }

test('folding leaves the answer before it as it was', () => {
  const before = fold(blank(), [started, text(2, 'a')])
  fold(before, [text(3, 'b')])
  expect(textOf(before.parts)).toBe('a')
  expect(before.lastSeq).toBe(2)
})

test('any division into lists gives the same answer', () => {
  const items = [queued, started, text(2, 'a', 'thinking'), text(3, 'b'), text(4, 'c')]
  const whole = fold(blank(), items)
  for (let cut = 0; cut <= items.length; cut += 1) {
    expect(fold(fold(blank(), items.slice(0, cut)), items.slice(cut))).toEqual(whole)
  }
})

test('an event that is in already is ignored', () => {
  const answer = fold(blank(), [started, text(2, 'a'), text(2, 'a'), started])
  expect(textOf(answer.parts)).toBe('a')
})

test('a gap is an error', () => {
  expect(() => fold(blank(), [started, text(3, 'a')])).toThrow('event 3 follows 1')
})

test('a continued answer goes on in the part where it was cut', () => {
  const base = [
    { type: 'thinking', text: 'Hm.' },
    { type: 'text', text: 'Half' },
  ] as const
  const answer = fold(blank(base), [started, text(2, ' whole')])
  expect(answer.parts).toEqual([base[0], { type: 'text', text: 'Half whole' }])
})

test('an event of an unknown kind counts and says nothing', () => {
  const answer = fold(blank(), [started, { kind: 'unknown', id: '1:2', seq: 2 }, text(3, 'a')])
  expect(textOf(answer.parts)).toBe('a')
  expect(answer.lastId).toBe('1:3')
})

test('text takes back the notes about the wait, the end takes back all', () => {
  const engine: Note = { key: 'engine', phase: 'ready' }
  const waiting = fold(blank(), [queued, engine, started, { key: 'prefill', share: 0.5 }])
  expect(Object.keys(waiting.notes)).toEqual(['queued', 'engine', 'prefill'])
  const running = fold(waiting, [text(2, 'a')])
  expect(running.notes).toEqual({ engine })
  const ended = fold(running, [{ kind: 'stopped', id: '1:3', seq: 3, data: {} }, queued])
  expect(ended.notes).toEqual({})
})

test('place 0 takes the queue note back', () => {
  expect(fold(blank(), [queued, { key: 'queued', place: 0 }]).notes).toEqual({})
})

test('what the model was not told is known from the first event', () => {
  const { data } = started as Extract<RunEvent, { kind: 'started' }>
  expect(blank().leftOut).toBeNull()
  expect(fold(blank(), [started]).leftOut).toBe(0)
  expect(
    fold(blank(), [{ ...started, kind: 'started', data: { ...data, left_out: 4 } }]).leftOut,
  ).toBe(4)
})
