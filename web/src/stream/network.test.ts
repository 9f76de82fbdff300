import { expect, test } from 'vitest'
import { textOf } from './fold.ts'
import { READ_EVERY_MS } from './line.ts'
import { Network } from './network.ts'
import { DONE, HEAD, links, read, readAll, STARTED, text } from './reading.fake.ts'
import { bytes, FakeWorld, replay, streamOf, unanswered } from './world.fake.ts'

/** A server behind a proxy that lets a reply through when it is whole: what `told` says by then. */
function behindHolder(told: (now: number) => string): FakeWorld {
  const world: FakeWorld = new FakeWorld((_id, init) => unanswered(init))
  world.respondShort = (lastEventId, init) => {
    const all = bytes(HEAD + told(world.now()))
    return streamOf([lastEventId === '' ? all : replay(all, lastEventId)], 'close', init)
  }
  return world
}

/** A token every 100 ms, as far as it has come. */
function telling(until: number): (now: number) => string {
  return (now) => {
    const count = Math.min(until, Math.floor(now / 100))
    const words = Array.from({ length: count }, (_, i) => text(`1:${i + 2}`, `${i} `))
    const done = DONE.replace('1:3', `1:${until + 2}`)
    return STARTED + words.join('') + (count === until ? done : '')
  }
}

test('a stream that a proxy holds back is read in short requests', async () => {
  const world = behindHolder(telling(60))
  const reading = read(world)
  await world.advance(3_500)
  const shown = textOf(reading.answer.parts)
  expect(shown).toMatch(/^0 1 2 .*\b20 /)
  expect(links(reading)).toEqual(['connecting', 'connecting', 'open', 'open'])
  await world.until(reading.end)
  expect(textOf(reading.answer.parts)).toBe(Array.from({ length: 60 }, (_, i) => `${i} `).join(''))
  expect(reading.answer.state).toBe('done')
  expect(world.requests).toHaveLength(1)
  const gaps = world.shortRequests
    .slice(2)
    .map(({ at }, i) => at - (world.shortRequests[i + 1]?.at ?? 0))
  expect(new Set(gaps)).toEqual(new Set([1_000 + READ_EVERY_MS]))
  expect(world.isIdle).toBe(true)
})

test('a page that knows of the proxy does not try to stream', async () => {
  const network = new Network()
  const world = behindHolder(telling(30))
  await world.until(read(world, null, network).end)
  await world.until(read(world, null, network).end)
  expect(world.requests).toHaveLength(1)
})

test('on another network streams are tried again', async () => {
  const world = behindHolder(telling(10_000))
  const reading = read(world)
  await world.advance(5_000)
  expect(world.requests).toHaveLength(1)
  world.wake('online')
  await world.settle()
  expect(world.requests).toHaveLength(2)
  reading.leave()
  await world.until(reading.end)
  expect(world.isIdle).toBe(true)
})

test('a verdict on the network does not hold for ever', async () => {
  const world = behindHolder(telling(10_000))
  const reading = read(world)
  await world.advance(310_000)
  expect(world.requests).toHaveLength(2)
  reading.leave()
  await world.until(reading.end)
})

test('a server that is slow to answer is waited for', async () => {
  const world: FakeWorld = new FakeWorld(
    (_id, init) =>
      new Promise((resolve) => {
        const body = bytes(HEAD + STARTED + text('1:2', 'a') + DONE)
        world.later(() => resolve(streamOf([body], 'close', init)), 8_000)
      }),
  )
  expect(textOf((await readAll(world)).parts)).toBe('a')
  expect(world.requests).toHaveLength(1)
  expect(world.shortRequests).toHaveLength(1)
})

test('a stream that opens asks for nothing beside it', async () => {
  const world: FakeWorld = new FakeWorld((_id, init) => streamOf([bytes(HEAD)], 'hang', init))
  const reading = read(world)
  await world.advance(20_000)
  expect(world.shortRequests).toHaveLength(0)
  reading.leave()
  await world.until(reading.end)
  expect(world.isIdle).toBe(true)
})

test('short requests that fail count as a lost connection, and go on', async () => {
  const world = behindHolder(telling(40))
  const reading = read(world)
  await world.advance(2_500)
  const answer = world.respondShort
  world.respondShort = () => new Response('', { status: 502 })
  await world.advance(1_500)
  expect(links(reading).at(-1)).toBe('lost')
  world.respondShort = answer
  await world.until(reading.end)
  expect(reading.answer.state).toBe('done')
})
