import { expect, test } from 'vitest'
import { sharingReach } from './reach.ts'
import { FakeWorld } from './world.fake.ts'
import type { Wake, World } from './world.ts'

/** A page whose server does as it is told, and what it has woken for. */
function page(): { answer: FakeWorld; world: World; wakes: Wake[] } {
  const answer = new FakeWorld(() => new Response())
  const world = sharingReach(answer)
  const wakes: Wake[] = []
  world.onWake((wake) => wakes.push(wake))
  return { answer, world, wakes }
}

const ask = (world: World, signal?: AbortSignal): Promise<unknown> =>
  world.fetch('api', signal ? { signal } : {}).catch(() => null)

const refuse = (): never => {
  throw new TypeError('refused')
}

test('the first reply of a server that was away wakes all that wait for it, once', async () => {
  const { answer, world, wakes } = page()
  await ask(world)
  for (const away of [refuse, () => new Response(null, { status: 502 })]) {
    answer.respond = away
    await ask(world)
    await ask(world)
    expect(wakes).toEqual([])
    answer.respond = () => new Response()
    await ask(world)
    await ask(world)
    expect(wakes.splice(0)).toEqual(['reached'])
  }
})

test('what the page itself has given up says nothing of the server', async () => {
  const { answer, world, wakes } = page()
  answer.respond = refuse
  await ask(world, AbortSignal.abort())
  answer.respond = () => new Response()
  await ask(world)
  expect(wakes).toEqual([])
})

test('it wakes for all that the world does, until nobody listens', () => {
  const answer = new FakeWorld(() => new Response())
  const wakes: Wake[] = []
  const stop = sharingReach(answer).onWake((wake) => wakes.push(wake))
  answer.wake('online')
  stop()
  answer.wake('shown')
  expect(wakes).toEqual(['online'])
  expect(answer.isIdle).toBe(true)
})
