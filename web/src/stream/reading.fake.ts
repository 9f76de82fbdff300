/** A reader of a run, for tests: it folds what it is told, as the page does. */
import { expect } from 'vitest'
import { blank, fold, type Answer } from './fold.ts'
import { follow, type Followed } from './follow.ts'
import { Network } from './network.ts'
import type { Place } from './wire.ts'
import type { FakeWorld } from './world.fake.ts'

export const HEAD = 'retry: 2000\n: ok\n\n'
export const STARTED = 'id: 1:1\nevent: started\ndata: {"model":"m","seed":1}\n\n'
export const DONE = 'id: 1:3\nevent: done\ndata: {"finish":"stop","usage":{},"timings":{}}\n\n'

export function text(id: string, value: string): string {
  return `id: ${id}\nevent: text\ndata: {"text":"${value}"}\n\n`
}

export interface Reading {
  answer: Answer
  readonly seen: Followed[]
  readonly leave: () => void
  readonly end: Promise<void>
}

/** Read a run to its end, folding as the page does. */
export function read(
  world: FakeWorld,
  after: Place | null = null,
  network = new Network(),
): Reading {
  const left = new AbortController()
  const reading: Reading = {
    answer: blank([], after),
    seen: [],
    leave: () => left.abort(),
    end: Promise.resolve().then(async () => {
      const options = { url: 'events', after, world, signal: left.signal, network }
      for await (const got of follow(options)) {
        reading.seen.push(got)
        if (got.type === 'items') reading.answer = fold(reading.answer, got.items)
      }
    }),
  }
  return reading
}

export async function readAll(world: FakeWorld): Promise<Answer> {
  const reading = read(world)
  await world.until(reading.end)
  expect(world.isIdle).toBe(true)
  return reading.answer
}

export function links(reading: Reading): string[] {
  return reading.seen.flatMap((got) => (got.type === 'link' ? [got.link] : []))
}
