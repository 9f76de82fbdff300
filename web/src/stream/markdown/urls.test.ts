import { expect, test } from 'vitest'
import { externalUrl } from './urls.ts'

test.each([
  ['https://example.com/a?b=c#d', 'example.com'],
  ['HTTP://EXAMPLE.com', 'example.com'],
  ['mailto:a@example.com', ''],
])('%s may be followed', (href, host) => {
  expect(externalUrl(href)?.host).toBe(host)
})

test.each([
  'javascript:alert(1)',
  ' javascript:alert(1)',
  'JaVaScRiPt:alert(1)',
  'java\nscript:alert(1)',
  'data:text/html,<script>alert(1)</script>',
  'vbscript:x',
  'file:///etc/passwd',
  'blob:https://example.com/x',
  '/api/chats',
  '//example.com',
  '#/c/1',
  'example.com',
  '',
])('%j may not', (href) => {
  expect(externalUrl(href)).toBe(null)
})
