import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { Api, type Taken } from '../api.ts'
import { UNSET } from '../panel/settings.ts'
import { MemoryStorage } from '../storage.fake.ts'
import type { RunState } from '../stream/wire.ts'
import { FakeWorld } from '../stream/world.fake.ts'
import { Asking, type Owner } from './asking.svelte.ts'
import { Browser } from './tabs.fake.ts'
import { Tabs, type Air } from './tabs.ts'

interface Posted {
  readonly key: string
  readonly body: unknown
}

/** A server that takes every question but what `refuse` refuses, and a page that shows the answers `known`. */
class Desk {
  readonly posted: Posted[] = []
  readonly created: string[] = []
  readonly looked: string[] = []
  readonly taken: Taken[] = []
  readonly known = new Map<string, RunState>()
  readonly states = new Map<string, RunState>()
  refuse: (() => Response) | null = null
  readonly world: FakeWorld
  readonly browser = new Browser()
  readonly api: Api
  asking: Asking
  #air: Air = this.browser.air()

  constructor() {
    this.world = new FakeWorld((_id, init, url) => this.#reply(init, url))
    this.api = new Api(this.world, 'http://server/api/')
    this.asking = this.reload()
  }

  /** A new page in the same tab. */
  reload(): Asking {
    const owner: Owner = {
      stateOf: (answer) => this.known.get(answer) ?? null,
      onChat: () => {},
      onTaken: (_asked, taken) => void this.taken.push(taken),
      settings: () => UNSET,
      onForbidden: () => {},
    }
    const tabs = new Tabs(this.world, this.#air)
    this.asking = new Asking(this.api, this.world, tabs, owner)
    return this.asking
  }

  /** The tab is gone, and another one is opened. */
  openAnother(): Asking {
    this.browser.silence(this.#air)
    this.#air = this.browser.air()
    vi.stubGlobal('sessionStorage', new MemoryStorage())
    return this.reload()
  }

  async ask(content: string, after: string | null = null): Promise<void> {
    const before = after === null ? null : { answer: after }
    await this.asking.add('c', { content, parent: after }, before)
  }

  #reply(init: RequestInit, url: string): Response {
    const key = new Headers(init.headers).get('Idempotency-Key') ?? ''
    if (url.endsWith('/chats')) {
      this.created.push(key)
      return Response.json({ id: 'c' }, { status: 201 })
    }
    const looked = /messages\/(\w+)$/.exec(url)?.[1]
    if (looked !== undefined) {
      this.looked.push(looked)
      return Response.json({ id: looked, state: this.states.get(looked) })
    }
    this.posted.push({ key, body: JSON.parse(String(init.body)) })
    const refusal = this.refuse?.()
    if (refusal) return refusal
    const id = `answer${this.posted.length}`
    this.known.set(id, 'running')
    return Response.json({ message: { id, chat: 'c' }, run: { id: `run${id}` }, chat: {} })
  }
}

let desk: Desk

beforeEach(() => {
  vi.stubGlobal('localStorage', new MemoryStorage())
  vi.stubGlobal('sessionStorage', new MemoryStorage())
  desk = new Desk()
})

afterEach(() => {
  vi.unstubAllGlobals()
})

function refusal(code: string, status: number): () => Response {
  return () => Response.json({ error: { code, message: '' } }, { status })
}

test('a line goes one by one, each behind the answer to the one before', async () => {
  desk.known.set('a', 'running')
  await desk.ask('One?', 'a')
  const [first] = desk.asking.line
  await desk.asking.add('c', { content: 'Two?', parent: null }, { asked: first?.key ?? '' })
  expect(desk.posted).toEqual([])
  desk.known.set('a', 'done')
  await desk.asking.advance()
  expect(desk.posted.map(({ body }) => body)).toEqual([{ content: 'One?', parent: 'a' }])
  desk.known.set('answer1', 'stopped')
  await desk.asking.advance()
  expect(desk.posted.at(-1)?.body).toEqual({ content: 'Two?', parent: 'answer1' })
  expect(desk.asking.line).toEqual([])
  expect(desk.taken).toHaveLength(2)
})

test('behind a failed answer it waits for the reader', async () => {
  desk.known.set('a', 'failed')
  await desk.ask('One?', 'a')
  await desk.asking.advance()
  expect(desk.posted).toEqual([])
  await desk.asking.release(desk.asking.line[0]?.key ?? '')
  expect(desk.posted).toHaveLength(1)
})

test('it goes behind a failed answer that was gone on with', async () => {
  desk.known.set('a', 'failed')
  await desk.ask('One?', 'a')
  desk.known.set('a', 'done')
  await desk.asking.advance()
  expect(desk.posted).toHaveLength(1)
})

test('of an answer that is not shown the server is asked', async () => {
  desk.states.set('a', 'running')
  await desk.world.until(desk.ask('One?', 'a'))
  expect(desk.looked).toEqual(['a'])
  desk.states.set('a', 'done')
  await desk.world.advance(5_000)
  expect(desk.posted).toHaveLength(1)
})

test('a hidden tab asks the server, for what it knows is old', async () => {
  desk.known.set('a', 'running')
  desk.states.set('a', 'running')
  await desk.ask('One?', 'a')
  expect(desk.looked).toEqual([])
  desk.world.wake('hidden')
  await desk.world.advance(5_000)
  desk.states.set('a', 'done')
  await desk.world.advance(5_000)
  expect(desk.looked).toEqual(['a', 'a'])
  expect(desk.posted).toHaveLength(1)
})

test('what is being edited does not go, and goes under another key', async () => {
  desk.known.set('a', 'running')
  await desk.ask('One?', 'a')
  const key = desk.asking.line[0]?.key ?? ''
  desk.asking.hold(key, true)
  desk.known.set('a', 'done')
  await desk.asking.advance()
  expect(desk.posted).toEqual([])
  desk.asking.reword(key, 'Better?')
  await desk.world.settle()
  expect(desk.posted.map(({ body }) => body)).toEqual([{ content: 'Better?', parent: 'a' }])
  expect(desk.posted[0]?.key).not.toBe(key)
})

test('what is taken back while it is looked after does not go', async () => {
  desk.states.set('a', 'done')
  const asked = desk.ask('One?', 'a')
  desk.asking.withdraw(desk.asking.line[0]?.key ?? '')
  await asked
  expect(desk.posted).toEqual([])
  expect(desk.asking.line).toEqual([])
})

test('a refusal for a running answer is no problem but a wait', async () => {
  desk.refuse = refusal('run_active', 409)
  const asked = desk.asking.add('c', { content: 'One?', parent: 'a' }, null)
  desk.states.set('a', 'running')
  await desk.world.until(asked)
  expect(desk.asking.problems.size).toBe(0)
  expect(desk.asking.line[0]?.after).toEqual({ answer: 'a' })
  desk.refuse = null
  desk.states.set('a', 'done')
  await desk.world.advance(5_000)
  expect(desk.posted).toHaveLength(2)
  expect(desk.posted[0]?.key).toBe(desk.posted[1]?.key)
})

test('a refusal waits for the reader, and holds up nobody else', async () => {
  desk.refuse = refusal('queue_full', 503)
  await desk.ask('One?')
  desk.refuse = null
  await desk.ask('Two?')
  await desk.asking.advance()
  expect(desk.posted).toHaveLength(2)
  const [one] = desk.asking.line
  expect(desk.asking.problems.get(one?.key ?? '')?.code).toBe('queue_full')
  await desk.asking.again(one?.key ?? '')
  expect(desk.posted).toHaveLength(3)
  expect(desk.asking.line).toEqual([])
})

test('a reload keeps the line and its keys', async () => {
  desk.known.set('a', 'running')
  await desk.ask('One?', 'a')
  const before = desk.asking.line
  desk.known.set('a', 'done')
  await desk.reload().advance()
  expect(desk.posted.map(({ key }) => key)).toEqual(before.map(({ key }) => key))
  expect(desk.reload().line).toEqual([])
})

test.each(['the tab', 'another tab'])(
  'what one has asked waits in %s for nobody else',
  async (where) => {
    desk.api.user = 'ada'
    desk.known.set('a', 'running')
    await desk.ask('One?', 'a')
    desk.known.set('a', 'done')
    desk.api.user = 'bob'
    if (where === 'the tab') desk.reload()
    else {
      desk.openAnother().watch()
      await desk.world.advance(1_000)
    }
    await desk.asking.advance()
    expect(desk.asking.line).toEqual([])
    expect(desk.posted).toEqual([])
    desk.api.user = 'ada'
    expect(desk.reload().line).toEqual([])
  },
)

test('a chat is asked for with the key of its question', async () => {
  await desk.asking.add(null, { content: 'One?', parent: null }, null)
  expect(desk.created).toEqual([desk.posted[0]?.key])
})

test('what waits in a tab that is gone goes from the next one, under its key', async () => {
  desk.known.set('a', 'running')
  await desk.ask('One?', 'a')
  await desk.ask('Two?', 'a')
  const before = desk.asking.line
  const next = desk.openAnother()
  expect(next.line).toEqual([])
  next.watch()
  await desk.world.advance(1_000)
  expect(next.line).toEqual(before)
  expect(desk.posted).toEqual([])
  next.withdraw(before[1]?.key ?? '')
  await desk.world.settle()
  desk.known.set('a', 'done')
  await next.advance()
  expect(desk.posted.map(({ key }) => key)).toEqual([before[0]?.key])
  const last = desk.openAnother()
  last.watch()
  await desk.world.advance(1_000)
  expect(last.line).toEqual([])
  expect(desk.posted).toHaveLength(1)
})

test('what another tab has taken over while this one was frozen is not sent from here', async () => {
  desk.known.set('a', 'running')
  await desk.ask('One?', 'a')
  const frozen = desk.asking
  const other = desk.openAnother()
  other.watch()
  await desk.world.advance(1_000)
  const [taken] = other.line
  other.withdraw(taken?.key ?? '')
  desk.known.set('a', 'done')
  await frozen.advance()
  expect(frozen.line).toEqual([])
  expect(desk.posted).toEqual([])
})

test('what a tab was editing when it was closed waits for the reader in the next', async () => {
  desk.known.set('a', 'running')
  await desk.ask('One?', 'a')
  const key = desk.asking.line[0]?.key ?? ''
  desk.asking.hold(key, true)
  desk.known.set('a', 'done')
  const next = desk.openAnother()
  next.watch()
  await desk.world.advance(1_000)
  expect(next.line[0]?.isEdited).toBe(true)
  expect(desk.posted).toEqual([])
  next.hold(key, false)
  await desk.world.settle()
  expect(desk.posted.map((posted) => posted.key)).toEqual([key])
})

test('other settings send again what was refused for the old ones, and nothing else', async () => {
  desk.refuse = refusal('prompt_too_long', 400)
  await desk.ask('One?')
  desk.refuse = refusal('queue_full', 503)
  await desk.ask('Two?')
  desk.refuse = null
  await desk.asking.againAfter('settings', 'elsewhere')
  expect(desk.posted).toHaveLength(2)
  await desk.asking.againAfter('settings', 'c')
  expect(desk.posted.at(-1)?.body).toEqual({ content: 'One?', parent: null })
  expect(desk.asking.line).toHaveLength(1)
})
