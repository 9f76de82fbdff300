import { expect, test } from 'vitest'
import { ApiError, type ModelRow, type Models } from '../api.ts'
import type { Switch, SwitchStage } from '../stream/wire.ts'
import { Choosing, type Engine } from './choosing.svelte.ts'

const REFUSED = new ApiError('refused', 'unknown_model', 'There is no such model.')

/** An engine that notes what it is asked for, and refuses where it is told to. */
class FakeEngine implements Engine {
  readonly asked: unknown[] = []
  switch: Switch | null = null
  refusal: Error | null = null

  get isSwitching(): boolean {
    return this.switch !== null && this.switch.stage !== 'failed'
  }

  async models(): Promise<Models> {
    this.#heed('models')
    const models = [row('one', true), row('two', false), row('three', false)]
    return { model: 'one', can_switch: true, engine: { phase: 'ready' }, models }
  }

  async switchModel(model: string, now: boolean): Promise<void> {
    this.#heed(model, now)
  }

  async callOffSwitch(): Promise<void> {
    this.#heed('call off')
  }

  reach(stage: SwitchStage): void {
    const nothing = { share: null, detail: {}, answers: 0, code: null, message: null }
    this.switch = { model: 'two', stage, ...nothing }
  }

  #heed(...asked: unknown[]): void {
    this.asked.push(asked)
    if (this.refusal) throw this.refusal
  }
}

function row(name: string, isHere: boolean): ModelRow {
  const unknown = { size_bytes: null, memory_bytes: null, fits: null, languages: '' }
  return { name, is_here: isHere, ...unknown }
}

function choosingFrom(): { choosing: Choosing; engine: FakeEngine } {
  const engine = new FakeEngine()
  return { choosing: new Choosing(engine), engine }
}

test('what is here and what would have to be fetched are told apart', async () => {
  const { choosing } = choosingFrom()
  expect(choosing.rows(true)).toEqual([])
  await choosing.look()
  expect(choosing.rows(true).map(({ name }) => name)).toEqual(['one'])
  expect(choosing.rows(false).map(({ name }) => name)).toEqual(['two', 'three'])
})

test('what is typed is meant, whatever was picked before', async () => {
  const { choosing, engine } = choosingFrom()
  choosing.picked = 'two'
  expect(choosing.wish).toBe('two')
  choosing.typed = ' some/other '
  await choosing.switch()
  choosing.typed = '  '
  choosing.isHasty = true
  await choosing.switch()
  expect(engine.asked).toEqual([
    ['some/other', false],
    ['two', true],
  ])
})

test('nothing is asked for without a wish', async () => {
  const { choosing, engine } = choosingFrom()
  expect(choosing.canSwitch).toBe(false)
  await choosing.switch()
  expect(engine.asked).toEqual([])
})

test.each([
  ['fetching', false, true],
  ['waiting', false, true],
  ['loading', false, false],
  ['returning', false, false],
  ['failed', true, false],
] as const)('while a switch is %s: another %s, calling off %s', async (stage, another, callOff) => {
  const { choosing, engine } = choosingFrom()
  choosing.picked = 'three'
  engine.reach(stage)
  expect(choosing.canSwitch).toBe(another)
  expect(choosing.canCallOff).toBe(callOff)
  await choosing.switch()
  expect(engine.asked).toHaveLength(another ? 1 : 0)
})

test('a refusal is told until the next attempt', async () => {
  const { choosing, engine } = choosingFrom()
  choosing.picked = 'two'
  engine.refusal = REFUSED
  await choosing.look()
  expect(choosing.problem).toBe(REFUSED)
  expect(choosing.offer).toBeNull()
  engine.refusal = null
  await choosing.switch()
  expect(choosing.problem).toBeNull()
  engine.refusal = REFUSED
  await choosing.callOff()
  expect(choosing.problem).toBe(REFUSED)
})

test('a fault of the page is no refusal', async () => {
  const { choosing, engine } = choosingFrom()
  engine.refusal = new TypeError('a bug')
  await expect(choosing.look()).rejects.toThrow('a bug')
  expect(choosing.problem).toBeNull()
})
