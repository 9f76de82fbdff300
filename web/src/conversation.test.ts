import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { addressOf, chatOf, linkOf } from './address.ts'
import { Api, type ApiError } from './api.ts'
import { message } from './conversation/messages.fake.ts'
import { onlyTab } from './conversation/tabs.fake.ts'
import { Conversation } from './conversation.svelte.ts'
import { MemoryStorage } from './storage.fake.ts'
import type { Message } from './stream/wire.ts'
import { bytes, FakeWorld, streamOf } from './stream/world.fake.ts'

type Reply = (request: {
  body: unknown
  key: string | null
  init: RequestInit
}) => Response | Promise<Response>

const HEAD = 'retry: 2000\n: ok\n\n'
const STARTED = 'id: 1:1\nevent: started\ndata: {"model":"m","seed":1}\n\n'
const STOPPED = 'id: 1:3\nevent: stopped\ndata: {}\n\n'

function text(seq: number, value: string): string {
  return `id: 1:${seq}\nevent: text\ndata: {"text":"${value}"}\n\n`
}

const chat = { id: 'c', title: 'Why?' }
const question = message({ id: 'q', role: 'user', parts: [{ type: 'text', text: 'Why?' }] })
const running = message({ id: 'a', parent: 'q', state: 'running', run: 'r', created_at: 2 })

/** A server of which each test says how it answers `METHOD path`; nobody answers anything else. */
function server(routes: Record<string, Reply>): { world: FakeWorld; asked: string[] } {
  const asked: string[] = []
  const world = new FakeWorld((_id, init, url) => {
    const call = `${init.method ?? 'GET'} ${url.replace('http://server/api/', '')}`
    asked.push(call)
    const reply = routes[call]
    if (reply === undefined) throw new TypeError('Failed to fetch')
    const body: unknown = typeof init.body === 'string' ? JSON.parse(init.body) : null
    return reply({ body, key: new Headers(init.headers).get('Idempotency-Key'), init })
  })
  return { world, asked }
}

function conversationIn(world: FakeWorld): Conversation {
  return new Conversation(new Api(world, 'http://server/api/'), world, onlyTab(world))
}

function answerText(conversation: Conversation): string {
  return (
    conversation.messages
      .at(-1)
      ?.parts.map((part) => part.text)
      .join('') ?? ''
  )
}

/** Why the first of what waits is not through. */
function problemOf(conversation: Conversation): ApiError | undefined {
  return conversation.asking.problems.get(conversation.waiting[0]?.key ?? '')
}

function withdraw(conversation: Conversation): void {
  const [first] = conversation.waiting
  if (first) conversation.writing.withdraw(first)
}

function chatWith(...messages: Message[]): Reply {
  return () => Response.json({ chat, messages })
}

beforeEach(() => {
  vi.stubGlobal('localStorage', new MemoryStorage())
  vi.stubGlobal('sessionStorage', new MemoryStorage())
})

afterEach(() => {
  vi.unstubAllGlobals()
})

test('a question makes its chat, is answered, and the answer is read to its end', async () => {
  const { world, asked } = server({
    'POST chats': () => Response.json({ id: 'c' }, { status: 201 }),
    'POST chats/c/messages': ({ body }) => {
      expect(body).toEqual({ content: 'Why?', parent: null })
      return Response.json({ message: running, run: { id: 'r' }, chat }, { status: 202 })
    },
    'GET runs/r/events': ({ init }) =>
      streamOf([bytes(HEAD + STARTED + text(2, 'Because.') + STOPPED)], 'close', init),
  })
  const conversation = conversationIn(world)
  await world.until(conversation.open(null))
  await world.until(conversation.writing.ask('Why?'))
  await world.settle()
  expect(conversation.chat).toBe('c')
  expect(conversation.messages.map(({ role }) => role)).toEqual(['user', 'assistant'])
  expect(answerText(conversation)).toBe('Because.')
  expect(conversation.messages.at(-1)?.state).toBe('stopped')
  expect(conversation.isBusy).toBe(false)
  expect(asked).toHaveLength(3)
})

test('a question whose reply was lost is asked again with its key after a reload', async () => {
  const keys: (string | null)[] = []
  const routes: Record<string, Reply> = {
    'GET chats/c': chatWith(),
    'POST chats/c/messages': ({ key }) => {
      keys.push(key)
      if (keys.length === 1) throw new TypeError('network error')
      return Response.json({ message: running, run: { id: 'r' }, chat }, { status: 202 })
    },
    'GET runs/r/events': ({ init }) =>
      streamOf([bytes(HEAD + STARTED + text(2, 'Because.') + STOPPED)], 'close', init),
  }
  const before = server(routes)
  const first = conversationIn(before.world)
  await before.world.until(first.open('c'))
  void first.writing.ask('Why?')
  await before.world.settle()
  expect(problemOf(first)?.type).toBe('offline')

  const after = server(routes)
  const second = conversationIn(after.world)
  await after.world.until(second.open('c'))
  await after.world.settle()
  expect(answerText(second)).toBe('Because.')
  expect(keys).toHaveLength(2)
  expect(keys[0]).toBe(keys[1])
  expect(second.waiting).toEqual([])
})

test('a reload goes on behind what the message tells already', async () => {
  const half = { ...running, parts: [{ type: 'text' as const, text: 'Half' }], last_id: '1:2' }
  const { world } = server({
    'GET chats/c': chatWith(question, half),
    'GET runs/r/events': ({ init }) =>
      streamOf(
        [bytes(`${HEAD}${text(3, ' whole')}id: 1:4\nevent: stopped\ndata: {}\n\n`)],
        'close',
        init,
      ),
  })
  const conversation = conversationIn(world)
  await world.until(conversation.open('c'))
  await world.settle()
  expect(world.requests.at(-1)?.lastEventId).toBe('1:2')
  expect(answerText(conversation)).toBe('Half whole')
})

test('where the log has another past, the message is read again', async () => {
  let reads = 0
  const { world } = server({
    'GET chats/c': () => {
      reads += 1
      const old = { ...running, parts: [{ type: 'text' as const, text: 'lost' }], last_id: '1:2' }
      return Response.json({ chat, messages: [question, reads === 1 ? old : running] })
    },
    'GET runs/r/events': ({ init }) =>
      new Headers(init.headers).has('Last-Event-ID')
        ? Response.json({ error: { code: 'reset', message: '' } }, { status: 409 })
        : streamOf([bytes(HEAD + STARTED + text(2, 'true') + STOPPED)], 'close', init),
  })
  const conversation = conversationIn(world)
  await world.until(conversation.open('c'))
  await world.advance(2_000)
  expect(answerText(conversation)).toBe('true')
})

test('a run that the server does not know is asked for once', async () => {
  const { world, asked } = server({
    'GET chats/c': chatWith(question, running),
    'GET runs/r/events': () => new Response('', { status: 404 }),
  })
  const conversation = conversationIn(world)
  await world.until(conversation.open('c'))
  await world.advance(60_000)
  expect(asked.filter((call) => call === 'GET runs/r/events')).toHaveLength(1)
  expect(conversation.isBusy).toBe(false)
})

test('a question asked before the page has loaded is asked once', async () => {
  const { world, asked } = server({
    'POST chats': () => Response.json({ id: 'c' }, { status: 201 }),
    'POST chats/c/messages': () => Response.json({ message: running, run: { id: 'r' }, chat }),
    'GET runs/r/events': ({ init }) => streamOf([bytes(HEAD + STARTED)], 'hang', init),
  })
  const conversation = conversationIn(world)
  const opened = conversation.open(null)
  const answered = conversation.writing.ask('Why?')
  await world.until(Promise.all([opened, answered]))
  expect(asked.filter((call) => call.startsWith('POST'))).toEqual([
    'POST chats',
    'POST chats/c/messages',
  ])
})

test('a refused question can be sent again or taken back', async () => {
  const { world } = server({
    'GET chats/c': chatWith(),
    'POST chats/c/messages': () =>
      Response.json({ error: { code: 'queue_full', message: 'full' } }, { status: 503 }),
  })
  const conversation = conversationIn(world)
  await world.until(conversation.open('c'))
  await world.until(conversation.writing.ask('Why?'))
  expect(problemOf(conversation)?.code).toBe('queue_full')
  expect(conversation.draft).toBe('')
  withdraw(conversation)
  expect(conversation.draft).toBe('Why?')
  expect(conversation.isBusy).toBe(false)
})

test('a question taken back is not sent when the server is there again', async () => {
  const routes: Record<string, Reply> = { 'GET chats/c': chatWith() }
  const { world, asked } = server(routes)
  const conversation = conversationIn(world)
  await world.until(conversation.open('c'))
  void conversation.writing.ask('Why?')
  await world.settle()
  expect(problemOf(conversation)?.type).toBe('offline')
  withdraw(conversation)
  expect(conversation.draft).toBe('Why?')
  routes['POST chats/c/messages'] = () =>
    Response.json({ message: running, run: { id: 'r' }, chat })
  const before = asked.length
  world.wake('online')
  await world.advance(60_000)
  expect(asked).toHaveLength(before)
  expect(conversation.messages).toEqual([])
})

test('continuing keeps the text and reads the new run', async () => {
  const cut = {
    ...running,
    state: 'stopped' as const,
    parts: [{ type: 'text' as const, text: 'Half' }],
  }
  const { world } = server({
    'GET chats/c': chatWith(question, cut),
    'POST chats/c/messages': ({ body }) => {
      expect(body).toEqual({ continue: 'a' })
      const message = { ...cut, state: 'queued', run: 'r2' }
      return Response.json({ message, run: { id: 'r2' }, chat }, { status: 202 })
    },
    'GET runs/r2/events': ({ init }) =>
      streamOf([bytes(HEAD + STARTED + text(2, ' whole') + STOPPED)], 'close', init),
  })
  const conversation = conversationIn(world)
  await world.until(conversation.open('c'))
  const last = conversation.messages.at(-1)
  if (last) await world.until(conversation.writing.carryOn(last))
  await world.settle()
  expect(conversation.messages).toHaveLength(2)
  expect(answerText(conversation)).toBe('Half whole')
})

test('another answer to the same question takes the place of the first', async () => {
  const failed = { ...running, state: 'failed' as const }
  const { world } = server({
    'GET chats/c': chatWith(question, failed),
    'POST chats/c/messages': ({ body }) => {
      expect(body).toEqual({ regenerate: 'a' })
      return Response.json({ message: { ...running, id: 'b', run: 'r2' }, run: { id: 'r2' }, chat })
    },
    'GET runs/r2/events': ({ init }) =>
      streamOf([bytes(HEAD + STARTED + text(2, 'better') + STOPPED)], 'close', init),
  })
  const conversation = conversationIn(world)
  await world.until(conversation.open('c'))
  await world.until(conversation.writing.regenerate(failed))
  await world.settle()
  expect(conversation.messages.map(({ id }) => id)).toEqual(['q', 'b'])
  expect(answerText(conversation)).toBe('better')
})

test('a run that starts elsewhere in this chat is found', async () => {
  let messages: Message[] = []
  const news = { id: 'r', chat: 'c', message: 'a', state: 'queued' }
  const { world } = server({
    'GET chats/c': () => Response.json({ chat, messages }),
    'GET live': ({ init }) =>
      streamOf(
        [
          bytes(`event: snapshot\ndata: {"runs":[],"engine":{"phase":"ready"}}\n\n`),
          bytes(`event: run\ndata: ${JSON.stringify(news)}\n\n`),
        ],
        'hang',
        init,
      ),
    'GET runs/r/events': ({ init }) =>
      streamOf([bytes(HEAD + STARTED + text(2, 'Hi'))], 'hang', init),
  })
  const conversation = conversationIn(world)
  await world.until(conversation.open('c'))
  messages = [question, running]
  void conversation.watch()
  await world.settle()
  expect(conversation.engine?.phase).toBe('ready')
  expect(answerText(conversation)).toBe('Hi')
  expect(conversation.live?.run).toBe('r')
})

test('what was read before a question was asked does not hide it', async () => {
  const reads: ((response: Response) => void)[] = []
  const routes: Record<string, Reply> = {
    'GET chats/c': chatWith(question, message({ id: 'a', parent: 'q', created_at: 2 })),
    'GET live': ({ init }) =>
      streamOf(
        [bytes(`event: snapshot\ndata: {"runs":[],"engine":{"phase":"ready"}}\n\n`)],
        'hang',
        init,
      ),
    'POST chats/c/messages': ({ body }) => {
      expect(body).toEqual({ content: 'And then?', parent: 'a' })
      return Response.json({
        message: { ...running, id: 'b', parent: 'q2' },
        run: { id: 'r' },
        chat,
      })
    },
    'GET runs/r/events': ({ init }) =>
      streamOf([bytes(HEAD + STARTED + text(2, 'Hi'))], 'hang', init),
  }
  const { world } = server(routes)
  const conversation = conversationIn(world)
  await world.until(conversation.open('c'))
  routes['GET chats/c'] = () => new Promise((resolve) => reads.push(resolve))
  void conversation.watch()
  await world.settle()
  expect(reads).toHaveLength(1)
  void conversation.writing.ask('And then?')
  await world.settle()
  reads[0]?.(Response.json({ chat, messages: [question] }))
  await world.settle()
  expect(conversation.messages.map(({ id }) => id)).toEqual(['q', 'a', 'q2', 'b'])
  expect(answerText(conversation)).toBe('Hi')
})

test('a question asked before its chat is known stays a draft', async () => {
  const { world, asked } = server({ 'GET chats/c': () => new Promise(() => {}) })
  const conversation = conversationIn(world)
  void conversation.open('c')
  conversation.writing.keepDraft('Why?')
  await world.until(conversation.writing.ask('Why?'))
  expect(conversation.draft).toBe('Why?')
  expect(asked).toEqual(['GET chats/c'])
})

test('leaving a chat lets go of its run', async () => {
  let isReleased = false
  const { world } = server({
    'GET chats/c': chatWith(question, running),
    'GET runs/r/events': ({ init }) => {
      init.signal?.addEventListener('abort', () => (isReleased = true))
      return streamOf([bytes(HEAD + STARTED)], 'hang', init)
    },
  })
  const conversation = conversationIn(world)
  await world.until(conversation.open('c'))
  await world.settle()
  expect(conversation.live?.run).toBe('r')
  await world.until(conversation.open(null))
  await world.settle()
  expect(isReleased).toBe(true)
  expect(conversation.live).toBeNull()
  expect(world.isIdle).toBe(true)
})

test('a draft is kept per chat', async () => {
  const { world } = server({
    'GET chats/c': chatWith(),
  })
  const conversation = conversationIn(world)
  await world.until(conversation.open('c'))
  conversation.writing.keepDraft('half a thought')
  await world.until(conversation.open(null))
  expect(conversation.draft).toBe('')
  await world.until(conversation.open('c'))
  expect(conversation.draft).toBe('half a thought')
})

test('a missing key locks the page', async () => {
  const { world } = server({
    'GET chats/c': () =>
      Response.json({ error: { code: 'unauthorized', message: '' } }, { status: 401 }),
  })
  const conversation = conversationIn(world)
  await world.until(conversation.open('c'))
  expect(conversation.isLocked).toBe(true)
})

test('addresses name chats', () => {
  expect(chatOf(addressOf('0a1b'))).toBe('0a1b')
  expect(chatOf(addressOf(null))).toBeNull()
  expect(chatOf('')).toBeNull()
  expect(chatOf('#/c/../../x')).toBeNull()
  expect(chatOf('#/sign-in/Ab-_1')).toBeNull()
  expect(linkOf('#/sign-in/Ab-_1')).toBe('Ab-_1')
  expect(linkOf('#/c/0a1b')).toBeNull()
})
