import { expect, test } from 'vitest'
import { Api, ApiError, newKey, patiently } from './api.ts'
import { FakeWorld } from './stream/world.fake.ts'

const forever = new AbortController().signal
const FIRST = { limit: 50, before: null }

function refusal(status: number, code: string, headers: Record<string, string> = {}): Response {
  return Response.json({ error: { code, message: `it is ${code}` } }, { status, headers })
}

async function failureOf(response: () => Response): Promise<ApiError> {
  const world = new FakeWorld(response)
  const error = await new Api(world, 'http://server/chat/api/')
    .page(FIRST)
    .catch((thrown: unknown) => thrown)
  expect(error).toBeInstanceOf(ApiError)
  return error as ApiError
}

test.each([
  [
    'a full queue',
    () => refusal(503, 'queue_full', { 'Retry-After': '7' }),
    'busy',
    'queue_full',
    7_000,
  ],
  ['a full disk', () => refusal(507, 'log_unwritable'), 'busy', 'log_unwritable', 0],
  ['a bad request', () => refusal(400, 'prompt_too_long'), 'refused', 'prompt_too_long', 0],
  ['a foreign page', () => refusal(403, 'foreign_origin'), 'refused', 'foreign_origin', 0],
  ['a missing key', () => refusal(401, 'unauthorized'), 'forbidden', 'unauthorized', 0],
  [
    'a proxy without its server',
    () => new Response('<h1>', { status: 502 }),
    'offline',
    'offline',
    0,
  ],
  ['a proxy of few words', () => new Response('', { status: 503 }), 'offline', 'offline', 0],
  [
    'a server that stops',
    () => new Response('{"error": {"code": "shutting_down"}}', { status: 503 }),
    'offline',
    'offline',
    0,
  ],
  ['a proxy that forbids', () => new Response('no', { status: 413 }), 'refused', 'http_413', 0],
  ['a reply cut short', () => new Response('{"chats": ['), 'offline', 'offline', 0],
] as const)('%s', async (_name, response, type, code, retryAfterMs) => {
  const failure = await failureOf(response)
  expect([failure.type, failure.code, failure.retryAfterMs]).toEqual([type, code, retryAfterMs])
})

test('no answer at all is offline', async () => {
  const failure = await failureOf(() => {
    throw new TypeError('Failed to fetch')
  })
  expect(failure.type).toBe('offline')
})

test('a question is sent again with its key until the server is there', async () => {
  const keys: (string | null)[] = []
  const world: FakeWorld = new FakeWorld((_id, init) => {
    keys.push(new Headers(init.headers).get('Idempotency-Key'))
    if (keys.length < 4) throw new TypeError('Failed to fetch')
    return Response.json({ message: { id: 'm' }, run: { id: 'r' } }, { status: 202 })
  })
  const api = new Api(world, '/api/')
  const waits: string[] = []
  const reply = await world.until(
    patiently(
      () => api.ask('c', { content: 'hello', parent: null }, 'key-1'),
      world,
      forever,
      (error) => waits.push(error.type),
    ),
  )
  expect(reply.run.id).toBe('r')
  expect(keys).toEqual(Array(4).fill('key-1'))
  expect(waits).toEqual(Array(3).fill('offline'))
})

test('a refusal is not asked for again', async () => {
  const world: FakeWorld = new FakeWorld(() => refusal(400, 'empty_prompt'))
  const api = new Api(world, '/api/')
  await expect(patiently(() => api.page(FIRST), world, forever)).rejects.toThrow(
    'it is empty_prompt',
  )
  expect(world.requests).toHaveLength(1)
})

test('nobody waits for a server once the reader has gone elsewhere', async () => {
  const world: FakeWorld = new FakeWorld(() => {
    throw new TypeError('Failed to fetch')
  })
  const left = new AbortController()
  const asked = patiently(() => new Api(world, '/api/').page(FIRST), world, left.signal)
  await world.settle()
  left.abort()
  await expect(asked).rejects.toThrow('abort')
  expect(world.requests).toHaveLength(1)
  expect(world.isIdle).toBe(true)
})

test('keys differ, without a secure context too', () => {
  const keys = new Set(Array.from({ length: 100 }, newKey))
  expect(keys.size).toBe(100)
  for (const key of keys) expect(key).toMatch(/^[0-9a-f]{32}$/)
})
