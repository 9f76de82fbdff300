import { expect, test } from 'vitest'
import { confirmsComposition } from './keys.ts'

test.each([
  ['Enter alone', { isComposing: false, keyCode: 13 }, false],
  ['Enter while Chrome composes', { isComposing: true, keyCode: 229 }, true],
  ['Enter while Firefox composes', { isComposing: true, keyCode: 13 }, true],
  ['Enter that ends a composition in Safari', { isComposing: false, keyCode: 229 }, true],
] as const)('%s', (_name, event, confirms) => {
  expect(confirmsComposition(event)).toBe(confirms)
})
