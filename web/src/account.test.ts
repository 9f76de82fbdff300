import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { Account } from './account.svelte.ts'
import { Api } from './api.ts'
import { kept, keptInTab } from './storage.ts'
import { MemoryStorage } from './storage.fake.ts'
import { FakeWorld } from './stream/world.fake.ts'

let who: { name: string; by: string } | null
let reloads: number
let api: Api
let account: Account

beforeEach(() => {
  vi.stubGlobal('localStorage', new MemoryStorage())
  vi.stubGlobal('sessionStorage', new MemoryStorage())
  who = { name: 'ada', by: 'session' }
  reloads = 0
  const world = new FakeWorld((_id, init, url) => {
    if (who === null) throw new TypeError('Failed to fetch')
    if (init.method === 'GET' && url.endsWith('/me')) return Response.json({ ...who, role: 'user' })
    if (url.endsWith('/session')) return new Response(null, { status: 204 })
    const meant = new Headers(init.headers).get('If-User')
    if (meant === null || meant === encodeURIComponent(who.name))
      return new Response(null, { status: 204 })
    return Response.json({ error: { code: 'other_user', message: '' } }, { status: 403 })
  })
  api = new Api(world, 'http://server/api/')
  account = reloaded()
})

/** The account as a page that is loaded anew has it. */
function reloaded(): Account {
  return new Account(api, () => (reloads += 1))
}

afterEach(() => {
  vi.unstubAllGlobals()
})

function leaveTraces(): void {
  kept.set('draft.c', 'a secret')
  keptInTab.set('draft.c', 'a secret')
  kept.set('theme', 'dark')
}

function traces(): (string | null)[] {
  return [kept.get('draft.c'), keptInTab.get('draft.c'), kept.get('theme')]
}

test('whoever comes back finds what was begun', async () => {
  expect(await account.look()).toBe(true)
  leaveTraces()
  expect(await account.signIn({ key: 'k' })).toBe(true)
  expect(traces()).toEqual(['a secret', 'a secret', 'dark'])
  expect(reloads).toBe(0)
})

test('somebody else finds nothing of it, but the page as it looked', async () => {
  await account.look()
  leaveTraces()
  who = { name: 'bob', by: 'session' }
  expect(await account.signIn({ key: 'k' })).toBe(false)
  expect(traces()).toEqual([null, null, 'dark'])
  expect(reloads).toBe(1)
  expect(await reloaded().look()).toBe(true)
})

test('what a page still sends when somebody else has come is not done, and the page begins anew', async () => {
  who = { name: '小明', by: 'user' }
  await account.look()
  leaveTraces()
  await api.deleteChat('c')
  who = { name: 'bob', by: 'user' }
  for (const turn of [1, 2]) {
    await expect(api.deleteChat('c')).rejects.toMatchObject({ code: 'other_user' })
    await vi.waitFor(() => expect(reloads).toBe(turn))
  }
  expect(traces()).toEqual([null, null, 'dark'])
  await reloaded().look()
  await api.deleteChat('c')
})

test('before the server has said who it is, whoever was here last is meant', async () => {
  await account.look()
  who = { name: 'bob', by: 'user' }
  const again = reloaded()
  for (const looked of [again.look(), again.look()]) {
    await expect(api.deleteChat('c')).rejects.toMatchObject({ code: 'other_user' })
    expect(await looked).toBe(false)
  }
})

test('who signs out leaves nothing behind', async () => {
  await account.look()
  leaveTraces()
  await account.signOut()
  expect(traces()).toEqual([null, null, 'dark'])
  expect(reloads).toBe(1)
})

test('while the server is away nobody is signed out, and nothing is lost', async () => {
  await account.look()
  leaveTraces()
  who = null
  await account.signOut()
  expect(account.problem?.code).toBe('offline')
  expect(traces()).toEqual(['a secret', 'a secret', 'dark'])
  expect(await account.look()).toBe(true)
})

test('where nobody signs in there is no name', async () => {
  who = { name: 'local', by: 'nobody' }
  await account.look()
  expect([account.name, account.canSignOut]).toEqual([null, false])
  expect(kept.get('who')).toBeNull()
})
