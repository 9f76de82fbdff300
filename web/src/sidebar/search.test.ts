import { expect, test } from 'vitest'
import golden from '../../../wire/chats/search.json' with { type: 'json' }
import { Api } from '../api.ts'
import type { Chat } from '../stream/wire.ts'
import { FakeWorld } from '../stream/world.fake.ts'
import { chat } from './chats.fake.ts'
import { piecesOf, Search } from './search.svelte.ts'

type Pages = Record<string, { chats: Chat[]; next: string | null }>

/** A server with these pages, by query and cursor. */
function searching(pages: Pages): { world: FakeWorld; search: Search; asked: string[] } {
  const asked: string[] = []
  const world = new FakeWorld((_id, _init, url) => {
    const { searchParams } = new URL(url)
    const key = [searchParams.get('query'), searchParams.get('before')].filter(Boolean).join(' ')
    asked.push(key)
    const page = pages[key]
    if (page) return Response.json(page)
    return Response.json({ error: { code: 'query_too_long', message: '' } }, { status: 400 })
  })
  return { world, search: new Search(new Api(world, 'http://server/api/'), world), asked }
}

function chats(from: number, count: number): Chat[] {
  return Array.from({ length: count }, (_, n) => chat(`c${from + n}`, 1))
}

test('only what stands still for a moment is searched for', async () => {
  const { world, search, asked } = searching({ ink: { chats: chats(0, 2), next: null } })
  for (const query of ['i', 'in', 'ink']) {
    search.ask(query)
    await world.advance(100)
  }
  expect(search.isLoading).toBe(true)
  await world.advance(100)
  expect(asked).toEqual(['ink'])
  expect(search.found).toHaveLength(2)
  expect([search.isLoading, search.hasMore]).toEqual([false, false])
  search.ask('  ')
  expect([search.found, search.isLoading]).toEqual([null, false])
})

test('pages that are empty are read past, and one full page at a time', async () => {
  const { world, search, asked } = searching({
    ink: { chats: chats(0, 10), next: '1' },
    'ink 1': { chats: [], next: '2' },
    'ink 2': { chats: chats(10, 25), next: '3' },
    'ink 3': { chats: chats(35, 1), next: null },
  })
  search.ask('ink')
  await world.advance(200)
  expect(asked).toEqual(['ink', 'ink 1', 'ink 2'])
  await Promise.all([search.more(), search.more()])
  await search.more()
  expect(asked).toHaveLength(4)
  expect(search.found?.map(({ id }) => id)).toEqual(chats(0, 36).map(({ id }) => id))
})

test('what was found for an earlier query is not shown for a later one', async () => {
  const { world, search } = searching({
    a: { chats: chats(0, 1), next: null },
    b: { chats: chats(1, 1), next: null },
  })
  let reply = (): void => {}
  const { respond } = world
  world.respond = async (...asked) => {
    if (asked[2].includes('query=a')) await new Promise<void>((resolve) => (reply = resolve))
    return respond(...asked)
  }
  search.ask('a')
  await world.advance(200)
  search.ask('b')
  await world.advance(200)
  reply()
  await world.settle()
  expect(search.found?.map(({ id }) => id)).toEqual(['c1'])
})

test('what is found follows the news', async () => {
  const { world, search } = searching({ a: { chats: chats(0, 3), next: null } })
  search.ask('a')
  await world.advance(200)
  search.hear({ type: 'chat', id: 'c0', chat: null })
  search.hear({ type: 'chat', id: 'c2', chat: chat('c2', 9, 'renamed') })
  expect(search.found?.map(({ title }) => title)).toEqual(['chat c1', 'renamed'])
})

test('a search that is refused says so, until another is asked for', async () => {
  const { world, search } = searching({})
  search.ask('x')
  await world.advance(200)
  expect(search.problem?.code).toBe('query_too_long')
  search.ask('y')
  expect(search.problem).toBeNull()
})

test.each(golden.value.chats.map((chat, at) => ({ chat, marked: golden.marked[at] })))(
  'the hits of a search are cut out as the server means them: $marked',
  ({ chat, marked }) => {
    const match = { ...chat.match, hits: chat.match.hits as [number, number][] }
    const pieces = piecesOf(match)
    expect(pieces.filter(({ isHit }) => isHit).map(({ text }) => text)).toEqual(marked)
    expect(pieces.map(({ text }) => text).join('')).toBe(match.snippet)
  },
)
