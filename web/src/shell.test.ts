import { beforeEach, expect, test } from 'vitest'
import type { Proof } from './api.ts'
import { Shell, type Parts } from './shell.ts'
import type { Chat } from './stream/wire.ts'

let told: string[]
let isBusy: boolean
let isSame: boolean
let shell: Shell

/** Something whose every method says its name and what it was given. */
function telling(of: string, more: object = {}): never {
  const get = (target: object, name: string): unknown =>
    name in target
      ? Reflect.get(target, name)
      : (...given: unknown[]) => void told.push([`${of}.${name}`, ...given.map(String)].join(' '))
  return new Proxy(more, { get } as ProxyHandler<object>) as never
}

beforeEach(() => {
  told = []
  isBusy = false
  isSame = true
  const conversation = {
    chat: 'shown',
    get isBusy() {
      return isBusy
    },
    writing: telling('writing'),
  }
  const account = { signIn: () => Promise.resolve(isSame) }
  const parts: Parts = {
    conversation: telling('conversation', conversation),
    library: telling('library', {
      delete: ({ id }: Chat, shown: boolean) => told.push(`delete ${id} ${shown}`),
    }),
    layout: telling('layout'),
    account: account as unknown as Parts['account'],
    navigation: telling('navigation'),
    toQuestion: () => void told.push('toQuestion'),
    focus: () => void told.push('focus'),
  }
  shell = new Shell(parts)
})

test('a question goes to the top, unless it waits below an answer', () => {
  shell.ask('Why?')
  isBusy = true
  shell.ask('And then?')
  expect(told).toEqual(['toQuestion', 'writing.ask Why?', 'writing.ask And then?'])
})

test('a new chat takes what is to be asked in it along, and the focus', () => {
  shell.startNew()
  expect(told).toEqual(['layout.leave', 'navigation.goTo null'])
  told = []
  shell.startNew('Why?')
  expect(told.slice(2)).toEqual(['writing.putInFront Why?', 'focus'])
})

test('the chat that is shown is left when it is deleted, and shown again when it is put back', () => {
  const [shown, other] = [{ id: 'shown' }, { id: 'other' }] as Chat[]
  if (!shown || !other) throw new Error('there are two')
  shell.remove(other)
  shell.remove(shown)
  expect(told).toEqual(['delete other false', 'navigation.goTo null', 'delete shown true'])
  told = []
  shell.putBack({ chat: other, wasShown: false })
  shell.putBack({ chat: shown, wasShown: true })
  expect(told).toEqual(['navigation.goTo shown'])
})

test('whoever signs in goes on where they were; to somebody else nothing is shown', async () => {
  const proof: Proof = { key: 'k' }
  isSame = false
  await shell.signIn(proof)
  expect(told).toEqual([])
  isSame = true
  await shell.signIn(proof)
  expect(told).toEqual(['conversation.unlock', 'navigation.enter', 'focus'])
})
