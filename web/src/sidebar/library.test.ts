import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { Api } from '../api.ts'
import { MemoryStorage } from '../storage.fake.ts'
import type { Chat } from '../stream/wire.ts'
import { FakeWorld } from '../stream/world.fake.ts'
import { chat, READY } from './chats.fake.ts'
import { Library } from './library.svelte.ts'

const SNAPSHOT = { type: 'snapshot', runs: [], engine: READY } as const

beforeEach(() => void vi.stubGlobal('localStorage', new MemoryStorage()))
afterEach(() => void vi.unstubAllGlobals())

/** A server with these chats, newest first, that remembers what it was asked. */
class Fake {
  readonly asked: string[] = []
  readonly world: FakeWorld
  readonly library: Library
  chats: Chat[]
  /** What happens before the next reply leaves. */
  meanwhile = (): void => {}
  refuse: { status: number; code: string } | null = null

  constructor(...chats: Chat[]) {
    this.chats = chats
    this.world = new FakeWorld((_id, init, url) => this.#reply(init, new URL(url)))
    this.library = new Library(new Api(this.world, 'http://server/api/'), this.world)
  }

  get ids(): string {
    return this.library.chats.map(({ id }) => id).join(' ')
  }

  async snapshot(): Promise<void> {
    this.library.hear([SNAPSHOT])
    await this.world.settle()
  }

  tell(id: string, chat: Chat | null): void {
    this.library.hear([{ type: 'chat', id, chat }])
  }

  #reply({ method }: RequestInit, { pathname, searchParams }: URL): Response {
    const path = pathname.replace('/api/', '')
    this.asked.push(`${method} ${path}`)
    if (this.refuse) {
      const { status, code } = this.refuse
      this.refuse = null
      return Response.json({ error: { code, message: code } }, { status })
    }
    const reply = method === 'GET' ? this.#page(searchParams) : this.#change(path)
    this.meanwhile()
    return reply
  }

  #page(query: URLSearchParams): Response {
    const [limit, before] = [Number(query.get('limit')), query.get('before')]
    const from = before === null ? 0 : this.chats.findIndex(({ id }) => id === before) + 1
    const chats = this.chats.slice(from, from + limit)
    const isLast = from + limit >= this.chats.length
    return Response.json({ chats, next: isLast ? null : chats.at(-1)?.id })
  }

  #change(path: string): Response {
    const found = this.chats.find(({ id }) => path.startsWith(`chats/${id}`))
    return path.endsWith('restore') ? Response.json(found) : new Response(null, { status: 204 })
  }
}

function many(count: number): Chat[] {
  return Array.from({ length: count }, (_, n) => chat(`c${n}`, 10_000 - n))
}

test('the list is read with the first news, and page by page as the reader goes down', async () => {
  const server = new Fake(...many(220))
  await server.snapshot()
  expect(server.library.chats).toHaveLength(100)
  for (const length of [200, 220, 220]) {
    await Promise.all([server.library.more(), server.library.more()])
    expect(server.library.chats).toHaveLength(length)
  }
  expect(server.library.chats).toEqual(server.chats)
  expect(server.asked).toHaveLength(3)
})

test('after a connection as much is read as there was', async () => {
  const server = new Fake(...many(500))
  await server.snapshot()
  for (let page = 0; page < 3; page += 1) await server.library.more()
  server.chats = [chat('new', 20_000), ...many(500).filter(({ id }) => id !== 'c7')]
  await server.snapshot()
  expect(server.library.chats).toEqual(server.chats.slice(0, 400))
  await server.library.more()
  expect(server.library.chats).toEqual(server.chats)
})

test('news put a chat where it belongs, rename it, and take it away', async () => {
  const server = new Fake(chat('a', 30), chat('b', 20), chat('c', 10))
  await server.snapshot()
  server.tell('d', chat('d', 25))
  expect(server.ids).toBe('a d b c')
  server.tell('c', chat('c', 40))
  expect(server.ids).toBe('c a d b')
  server.tell('b', chat('b', 20, 'renamed'))
  expect(server.library.chats.at(-1)?.title).toBe('renamed')
  server.tell('a', null)
  server.tell('e', chat('e', 1))
  expect(server.ids).toBe('c d b e')
})

test('what belongs behind the end of the list waits for its page', async () => {
  const server = new Fake(...many(120))
  await server.snapshot()
  const old = chat('old', 10_000 - 105.5)
  server.chats.splice(106, 0, old)
  server.tell('old', old)
  expect(server.ids).not.toContain('old')
  await server.library.more()
  expect(server.library.chats).toEqual(server.chats)
})

test('what is heard while a page is on its way is newer than it', async () => {
  const server = new Fake(chat('a', 30), chat('b', 20))
  server.meanwhile = () => {
    server.tell('b', null)
    server.tell('c', chat('c', 40))
  }
  await server.snapshot()
  expect(server.ids).toBe('c a')
})

test('a chat is renamed at once, and keeps its name where the server refuses', async () => {
  const server = new Fake(chat('a', 30, 'old'))
  await server.snapshot()
  const [first] = server.library.chats
  server.refuse = { status: 404, code: 'unknown_chat' }
  const renamed = server.library.rename(first as Chat, '  new  ')
  expect(server.library.chats[0]?.title).toBe('new')
  await renamed
  await server.world.settle()
  expect(server.library.problem?.code).toBe('unknown_chat')
  expect(server.library.chats[0]?.title).toBe('old')
  const before = server.asked.length
  await server.library.rename(first as Chat, ' ')
  await server.library.rename(first as Chat, 'old')
  expect(server.asked).toHaveLength(before)
})

test('a chat that is deleted can be brought back to its place', async () => {
  const server = new Fake(chat('a', 30), chat('b', 20), chat('c', 10))
  await server.snapshot()
  await server.library.delete(chat('b', 20), true)
  expect(server.ids).toBe('a c')
  expect(server.library.deleted).toMatchObject({ chat: { id: 'b' }, wasShown: true })
  expect(await server.library.undo()).toMatchObject({ chat: { id: 'b' }, wasShown: true })
  expect(server.ids).toBe('a b c')
  expect(server.library.deleted).toBeNull()
  expect(await server.library.undo()).toBeNull()
  expect(server.asked.slice(-2)).toEqual(['DELETE chats/b', 'POST chats/b/restore'])
})

test('what is asked of a server that is away is asked again until it is there', async () => {
  const server = new Fake(chat('a', 30))
  await server.snapshot()
  server.refuse = { status: 502, code: '' }
  await server.world.until(server.library.delete(chat('a', 30), false))
  expect(server.asked.filter((call) => call.startsWith('DELETE'))).toHaveLength(2)
  expect(server.library.problem).toBeNull()
})

test('where a key is missing the list says nothing: the page asks for it', async () => {
  const server = new Fake(chat('a', 30))
  server.refuse = { status: 401, code: 'unauthorized' }
  await server.snapshot()
  expect(server.library.problem).toBeNull()
  await server.snapshot()
  expect(server.ids).toBe('a')
})
