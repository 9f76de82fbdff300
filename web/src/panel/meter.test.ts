import { expect, test } from 'vitest'
import { Api, type ContextUse } from '../api.ts'
import { message } from '../conversation/messages.fake.ts'
import type { Model } from '../stream/wire.ts'
import { FakeWorld } from '../stream/world.fake.ts'
import { estimateTokens } from './estimate.ts'
import { Meter, type Measured } from './meter.svelte.ts'
import { UNSET } from './settings.ts'

const MODEL: Model = {
  model: 'm',
  engine: 'e',
  quantization: null,
  context_length: 1_000,
  defaults: {},
}

const question = message({ id: 'q', role: 'user', parts: [{ type: 'text', text: 'Why?' }] })
const answer = message({
  id: 'a',
  usage: { prompt_tokens: 60, completion_tokens: 40, cached_tokens: 0 },
})

function measured(fields: Partial<Measured> = {}): Measured {
  return {
    ...{ chat: 'c', messages: [question, answer], draft: '', settings: UNSET, isBusy: false },
    engine: { phase: 'ready', ...MODEL },
    ...fields,
  }
}

type Use = Partial<ContextUse> | { error: { code: string; message: string } }

function meterOf(
  of: Measured,
  use: Use = {},
): { meter: Meter; world: FakeWorld; asked: unknown[] } {
  const asked: unknown[] = []
  const world = new FakeWorld((_id, init) => {
    asked.push(JSON.parse(String(init.body)))
    if ('error' in use) return Response.json(use, { status: 400 })
    const counted = { tokens: 150, context_length: 1_000, answer_room: 850, left_out: 0 }
    return Response.json({ ...counted, ...use })
  })
  return { meter: new Meter(new Api(world, 'http://server/api/'), world, of), world, asked }
}

test('before anybody has counted, the last answer and an estimate tell', () => {
  const { meter } = meterOf(measured({ draft: 'word '.repeat(80) }))
  expect(meter.size).toBe(1_000)
  expect(meter.tokens).toBe(100 + 100)
  expect(meter.isCounted).toBe(false)
  expect(meter.level).toBe('calm')
})

test('where no answer has told, what is there is estimated', () => {
  const stopped = message({
    id: 'a',
    state: 'stopped',
    parts: [{ type: 'text', text: '墨'.repeat(40) }],
  })
  const { meter } = meterOf(measured({ messages: [question, stopped] }))
  expect(meter.tokens).toBe(1 + 30)
})

test('a pause has the server count; what is typed behind that is estimated on top', async () => {
  const state = { ...measured({ draft: 'And now? ' }) }
  const { meter, world, asked } = meterOf(state)
  meter.follow()
  await world.advance(499)
  expect(asked).toEqual([])
  await world.advance(1)
  expect(asked).toEqual([{ content: 'And now?', parent: 'a' }])
  expect(meter.tokens).toBe(150 + estimateTokens('And now? ') - estimateTokens('And now?'))
})

test('nothing is asked while an answer is written, in a chat that is not there, of an engine that loads', async () => {
  for (const fields of [
    { isBusy: true },
    { chat: null, messages: [] },
    { engine: { phase: 'loading' } as const },
  ]) {
    const { meter, world, asked } = meterOf(measured(fields))
    meter.follow()
    await world.advance(1_000)
    expect(asked).toEqual([])
  }
})

test('what was called off is not taken for what is there now', async () => {
  const { meter, world, asked } = meterOf(measured(), { tokens: 999 })
  const callOff = meter.follow()
  callOff()
  await world.advance(1_000)
  expect(asked).toEqual([])
  expect(meter.tokens).toBe(100)
})

test('it warns before anything is left out, and says what is', async () => {
  const near = { ...answer, usage: { prompt_tokens: 600, completion_tokens: 50, cached_tokens: 0 } }
  expect(meterOf(measured({ messages: [question, near] })).meter.level).toBe('near')

  const { meter, world } = meterOf(measured(), { tokens: 700, left_out: 4 })
  meter.follow()
  await world.advance(500)
  expect([meter.level, meter.leftOut]).toEqual(['left_out', 4])

  const waiting = message({ id: 'b', state: 'queued' })
  const short = message({ id: 'a', left_out: 2 })
  expect(meterOf(measured({ messages: [question, short, question, waiting] })).meter.leftOut).toBe(
    2,
  )
})

test('a question that does not fit by itself is told', async () => {
  const error = { code: 'prompt_too_long', message: 'x' }
  const { meter, world } = meterOf(measured({ draft: 'long' }), { error })
  meter.follow()
  await world.advance(500)
  expect(meter.level).toBe('too_long')
  expect(
    meterOf(measured({ chat: null, messages: [], draft: '墨'.repeat(1_400) })).meter.level,
  ).toBe('too_long')
})

test('who asks for short answers is not warned of their length', () => {
  const settings = { system: null, sampling: { max_tokens: 10 } }
  const near = { ...answer, usage: { prompt_tokens: 600, completion_tokens: 50, cached_tokens: 0 } }
  expect(meterOf(measured({ messages: [question, near], settings })).meter.level).toBe('calm')
})
