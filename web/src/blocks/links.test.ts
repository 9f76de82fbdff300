import { expect, test } from 'vitest'
import type { Link } from '../stream/markdown/tree.ts'
import { isUnseen, showsHost } from './links.ts'

function link(href: string, text: string, isBare = true): Link {
  return { type: 'link', href, title: '', children: [text], isBare }
}

test.each(['', ' ', '\u200b', ' \u2060\u202e '])(
  'a link with the text %j cannot be seen',
  (text) => {
    expect(isUnseen(link('https://a.test/', text, false))).toBe(true)
  },
)

test('a link with text or anything else in it can be seen', () => {
  expect(isUnseen(link('https://a.test/', 'x', false))).toBe(false)
  const code = { type: 'code', text: '' } as const
  expect(isUnseen({ ...link('https://a.test/', ''), children: [code] })).toBe(false)
})

test.each([
  ['https://a.test/x', 'https://a.test/x', true],
  ['http://www.a.test', 'www.a.test', true],
  ['https://A.test/', 'https://A.test/', true],
  ['https://bank.test@a.test/', 'https://bank.test@a.test/', false],
  ['https://\u0430.test/', 'https://\u0430.test/', false],
])('whether the address %s shows its host', (href, text, shows) => {
  expect(showsHost(link(href, text), new URL(href))).toBe(shows)
  expect(showsHost(link(href, text, false), new URL(href))).toBe(false)
})
