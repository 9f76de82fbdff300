import { describe, expect, test } from 'vitest'
import { StreamError } from './errors.ts'
import { textOf } from './fold.ts'
import { READ_EVERY_MS } from './line.ts'
import { DONE, HEAD, links, read, readAll, STARTED, text } from './reading.fake.ts'
import { told, transcripts } from './transcripts.fake.ts'
import { bytes, FakeWorld, replay, streamOf, unanswered } from './world.fake.ts'

const ended = transcripts().filter(({ told }) => told.state !== 'queued')

describe.each(ended)('the transcript $name', ({ bytes: whole, told: expected }) => {
  test('reads the same in one piece and byte by byte', async () => {
    for (const size of [whole.length, 1, 2, 3, 7]) {
      const pieces = Array.from({ length: Math.ceil(whole.length / size) }, (_, i) =>
        whole.slice(i * size, (i + 1) * size),
      )
      const world: FakeWorld = new FakeWorld((_id, init) => streamOf(pieces, 'hang', init))
      expect(told(await readAll(world))).toEqual(expected)
      expect(world.requests).toHaveLength(1)
    }
  })

  test.each(['close', 'break', 'hang'] as const)(
    'reads the same with the connection cut at every byte (%s)',
    async (ending) => {
      for (let cut = 0; cut < whole.length; cut += 1) {
        const world: FakeWorld = new FakeWorld((lastEventId, init) =>
          world.requests.length === 1
            ? streamOf([whole.slice(0, cut)], ending, init)
            : streamOf([replay(whole, lastEventId)], 'close', init),
        )
        expect(told(await readAll(world)), `cut at byte ${cut}`).toEqual(expected)
        expect(world.requests, `cut at byte ${cut}`).toHaveLength(2)
      }
    },
  )
})

test('a run that waits keeps its notes while the connection stays open', async () => {
  const waiting = transcripts().find(({ name }) => name === 'waiting')
  const world: FakeWorld = new FakeWorld((_id, init) =>
    streamOf([waiting?.bytes ?? bytes('')], 'hang', init),
  )
  const reading = read(world)
  await world.advance(1_000)
  expect(told(reading.answer)).toEqual(waiting?.told)
  reading.leave()
  await world.until(reading.end)
  expect(world.isIdle).toBe(true)
})

test('heartbeats keep a slow run open, silence ends the connection', async () => {
  let beat = (): void => {}
  const world: FakeWorld = new FakeWorld((_id, init) => {
    const body = new ReadableStream<Uint8Array>({
      start(controller) {
        beat = () => controller.enqueue(bytes(': \n\n'))
        init.signal?.addEventListener('abort', () => controller.error(init.signal?.reason))
      },
    })
    return new Response(body, { headers: { 'Content-Type': 'text/event-stream' } })
  })
  const reading = read(world)
  for (let beats = 0; beats < 20; beats += 1) {
    await world.advance(10_000)
    beat()
  }
  await world.advance(24_000)
  expect(world.requests).toHaveLength(1)
  await world.advance(2_000)
  expect(world.requests).toHaveLength(2)
  expect(links(reading)).toEqual(['connecting', 'open', 'lost', 'connecting', 'open'])
  reading.leave()
  await world.until(reading.end)
})

test('a request that is never answered is given up and made again', async () => {
  const world: FakeWorld = new FakeWorld((_id, init) => unanswered(init))
  const reading = read(world)
  await world.advance(60_000)
  expect(world.requests.length).toBe(3)
  reading.leave()
  await world.until(reading.end)
  expect(world.isIdle).toBe(true)
})

test('an abort that nobody asked for is a lost connection', async () => {
  const world: FakeWorld = new FakeWorld((lastEventId, init) => {
    if (lastEventId === '')
      return streamOf([bytes(HEAD + STARTED + text('1:2', 'a'))], 'break', init)
    if (world.requests.length === 2)
      throw new DOMException('The operation was aborted', 'AbortError')
    return streamOf([bytes(HEAD + DONE)], 'close', init)
  })
  const answer = await readAll(world)
  expect(textOf(answer.parts)).toBe('a')
  expect(world.requests.map((request) => request.lastEventId)).toEqual(['', '1:2', '1:2'])
})

test('pauses double up to a bound and start over after progress', async () => {
  const world: FakeWorld = new FakeWorld(() => new Response('', { status: 502 }))
  const reading = read(world)
  await world.advance(120_000)
  const at = world.requests.map((request) => request.at)
  const pauses = at.slice(1).map((time, i) => time - (at[i] ?? 0))
  expect(pauses.slice(0, 4)).toEqual([187.5, 375, 750, 1500])
  expect(Math.max(...pauses)).toBeLessThanOrEqual(15_000)

  world.respond = (_id, init) => streamOf([bytes(HEAD + STARTED)], 'close', init)
  const before = world.requests.length
  await world.advance(15_000)
  const resumed = world.requests[before]?.at ?? 0
  expect((world.requests[before + 1]?.at ?? 0) - resumed).toBe(READ_EVERY_MS + 187.5)
  reading.leave()
  await world.until(reading.end)
})

test('an overloaded server is left alone for as long as it asks', async () => {
  const world: FakeWorld = new FakeWorld((_id, init) =>
    world.requests.length === 1
      ? new Response('', { status: 503, headers: { 'Retry-After': '7' } })
      : streamOf([bytes(HEAD + STARTED + text('1:2', 'a') + DONE)], 'close', init),
  )
  await readAll(world)
  expect(world.requests[1]?.at).toBe(7_000)
})

test('a network that comes back ends the pause', async () => {
  const world: FakeWorld = new FakeWorld((_id, init) => {
    if (world.requests.length < 8) throw new TypeError('Failed to fetch')
    return streamOf([bytes(HEAD + STARTED + text('1:2', 'a') + DONE)], 'close', init)
  })
  const reading = read(world)
  await world.advance(13_000)
  const before = world.now()
  world.wake('online')
  await world.until(reading.end)
  expect(world.now()).toBe(before)
})

test('a hidden tab lets go of the server and goes on from its cursor when it is shown', async () => {
  const world: FakeWorld = new FakeWorld((lastEventId, init) =>
    lastEventId === ''
      ? streamOf([bytes(HEAD + STARTED + text('1:2', 'a'))], 'hang', init)
      : streamOf([bytes(HEAD + DONE)], 'close', init),
  )
  const reading = read(world)
  await world.settle()
  world.wake('hidden')
  await world.advance(3_600_000)
  expect(world.requests).toHaveLength(1)
  expect(links(reading)).toEqual(['connecting', 'open'])
  world.wake('shown')
  await world.until(reading.end)
  expect(world.requests[1]).toEqual({ at: 3_600_000, lastEventId: '1:2' })
  expect(reading.answer.state).toBe('done')
})

test('events that come twice are read once', async () => {
  const twice = STARTED + text('1:2', 'a') + STARTED + text('1:2', 'a') + DONE
  const world: FakeWorld = new FakeWorld((_id, init) =>
    streamOf([bytes(HEAD + twice)], 'close', init),
  )
  const answer = await readAll(world)
  expect(textOf(answer.parts)).toBe('a')
})

test('a gap is asked for again, and what came before it is kept', async () => {
  const world: FakeWorld = new FakeWorld((lastEventId, init) =>
    lastEventId === ''
      ? streamOf([bytes(HEAD + STARTED + DONE)], 'hang', init)
      : streamOf([bytes(HEAD + text('1:2', 'a') + DONE)], 'hang', init),
  )
  const answer = await readAll(world)
  expect(textOf(answer.parts)).toBe('a')
  expect(world.requests.map((request) => request.lastEventId)).toEqual(['', '1:1'])
})

test('data that is not JSON ends the connection, not the page', async () => {
  const world: FakeWorld = new FakeWorld((lastEventId, init) =>
    lastEventId === ''
      ? streamOf([bytes(`${HEAD}${STARTED}id: 1:2\nevent: text\ndata: {"tex\n\n`)], 'hang', init)
      : streamOf([bytes(HEAD + text('1:2', 'a') + DONE)], 'hang', init),
  )
  expect(textOf((await readAll(world)).parts)).toBe('a')
})

test('a log with another past voids what was read', async () => {
  const world: FakeWorld = new FakeWorld((lastEventId, init) =>
    lastEventId === ''
      ? streamOf([bytes(HEAD + STARTED + text('1:2', 'lost'))], 'close', init)
      : Response.json({ error: { code: 'reset' } }, { status: 409 }),
  )
  const error = await world.until(read(world).end).catch((thrown: unknown) => thrown)
  expect((error as StreamError).type).toBe('reset')
  expect(world.requests).toHaveLength(2)
})

test('a reader that has the beginning asks for the rest', async () => {
  const world: FakeWorld = new FakeWorld((_id, init) =>
    streamOf([bytes(HEAD + DONE)], 'close', init),
  )
  const reading = read(world, { id: '1:2', seq: 2 })
  await world.until(reading.end)
  expect(reading.answer.state).toBe('done')
  expect(world.requests.map((request) => request.lastEventId)).toEqual(['1:2'])
})

test('nothing more to read ends quietly', async () => {
  const world: FakeWorld = new FakeWorld(() => new Response(null, { status: 204 }))
  expect((await readAll(world)).lastSeq).toBe(0)
})

test('a page of somebody else is not taken for the stream', async () => {
  const world: FakeWorld = new FakeWorld((_id, init) =>
    world.requests.length === 1
      ? new Response('<h1>Sign in to the hotel</h1>', { headers: { 'Content-Type': 'text/html' } })
      : streamOf([bytes(HEAD + STARTED + text('1:2', 'a') + DONE)], 'close', init),
  )
  expect(textOf((await readAll(world)).parts)).toBe('a')
})

test.each([
  [400, 'refused'],
  [401, 'forbidden'],
  [403, 'refused'],
  [404, 'missing'],
  [410, 'expired'],
] as const)('status %i is told to the caller as %s', async (status, type) => {
  const world: FakeWorld = new FakeWorld(() => new Response('', { status }))
  const error = await world.until(read(world).end).catch((thrown: unknown) => thrown)
  expect(error).toBeInstanceOf(StreamError)
  expect((error as StreamError).type).toBe(type)
  expect(world.isIdle).toBe(true)
})

test('a page that comes back out of the cache connects anew', async () => {
  const world: FakeWorld = new FakeWorld((lastEventId, init) =>
    lastEventId === ''
      ? streamOf([bytes(HEAD + STARTED + text('1:2', 'a'))], 'hang', init)
      : streamOf([bytes(HEAD + DONE)], 'close', init),
  )
  const reading = read(world)
  await world.settle()
  world.wake('restored')
  await world.until(reading.end)
  expect(world.requests.map(({ lastEventId }) => lastEventId)).toEqual(['', '1:2'])
})

test('what was stored before the connection is told as a replay, what comes then is not', async () => {
  const stored = 'event: note\ndata: {"key":"stored","seq":2}\n\n'
  let come = (): void => {}
  const world: FakeWorld = new FakeWorld((_id, init) => {
    const body = new ReadableStream<Uint8Array>({
      start(controller) {
        controller.enqueue(bytes(HEAD + stored + STARTED + text('1:2', 'a')))
        come = () => controller.enqueue(bytes(text('1:3', 'b') + DONE.replace('1:3', '1:4')))
        init.signal?.addEventListener('abort', () => controller.error(init.signal?.reason))
      },
    })
    return new Response(body, { headers: { 'Content-Type': 'text/event-stream' } })
  })
  const reading = read(world)
  await world.settle()
  come()
  await world.until(reading.end)
  expect(reading.seen.flatMap((got) => (got.type === 'items' ? [got.isReplay] : []))).toEqual([
    true,
    false,
  ])
  expect(reading.answer.notes).toEqual({})
})

test('a proxy that says when to come back as a date is believed', async () => {
  const world: FakeWorld = new FakeWorld((_id, init) =>
    world.requests.length === 1
      ? new Response('', {
          status: 503,
          headers: { 'Retry-After': new Date(Date.now() + 9_000).toUTCString() },
        })
      : streamOf([bytes(HEAD + STARTED + text('1:2', 'a') + DONE)], 'close', init),
  )
  await readAll(world)
  expect(world.requests[1]?.at).toBeGreaterThan(7_000)
  expect(world.requests[1]?.at).toBeLessThan(9_100)
})
