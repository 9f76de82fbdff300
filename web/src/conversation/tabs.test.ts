import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { MemoryStorage } from '../storage.fake.ts'
import { FakeWorld } from '../stream/world.fake.ts'
import { Browser } from './tabs.fake.ts'
import { Tabs } from './tabs.ts'

let world: FakeWorld
let browser: Browser

/** A tab of its own; with `session` the copy of another, or that one loaded anew. */
function open(session = new MemoryStorage(), air = browser.air()): Tabs {
  vi.stubGlobal('sessionStorage', session)
  return new Tabs(world, air)
}

beforeEach(() => {
  world = new FakeWorld(() => Response.error())
  browser = new Browser()
})

afterEach(() => {
  vi.unstubAllGlobals()
})

test('a tab keeps its name when it is loaded anew, and no two have the same', () => {
  const session = new MemoryStorage()
  const name = open(session).name
  expect(open(session).name).toBe(name)
  expect(open().name).not.toBe(name)
})

test('who does not answer is missing, and nobody misses itself', async () => {
  const one = open()
  const other = open()
  const names = [one.name, other.name, 'gone']
  expect(await world.until(one.missing(names))).toEqual(['gone'])
})

test('a tab that is frozen is missing', async () => {
  const air = browser.air()
  const frozen = open(new MemoryStorage(), air)
  const one = open()
  browser.silence(air)
  expect(await world.until(one.missing([frozen.name]))).toEqual([frozen.name])
})

test('the copy of a tab finds a name of its own', async () => {
  const session = new MemoryStorage()
  const original = open(session)
  const name = original.name
  const copied = Object.assign(new MemoryStorage(), session)
  const copy = open(copied)
  expect(copy.name).toBe(name)
  await world.until(copy.missing([name]))
  expect([original.name === name, copy.name === name]).toEqual([true, false])
  expect(open(copied).name).toBe(copy.name)
})

test('a tab that leaves is told of, when it has had the time to come back', async () => {
  const one = open()
  const other = open()
  let heard = 0
  one.onLeft = () => (heard += 1)
  other.leave()
  await world.advance(1_000)
  expect(heard).toBe(0)
  await world.advance(5_000)
  expect(heard).toBe(1)
})
