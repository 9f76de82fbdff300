import { expect, test } from 'vitest'
import { addressOf, chatOf, messageOf } from './address.ts'

test.each([
  [null, null],
  ['c1', null],
  ['c1', 'm-2'],
] as const)('the address of %s, %s leads back to it', (chat, message) => {
  const address = addressOf(chat, message)
  expect([chatOf(address), messageOf(address)]).toEqual([chat, message])
})

test.each(['', '#', '#/c/', '#/c/a/', '#/c/a/b/c', '#/c/a b', '#/d/a'])(
  '%j names nothing',
  (hash) => {
    expect([chatOf(hash), messageOf(hash)]).toEqual([null, null])
  },
)
