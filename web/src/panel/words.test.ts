import { expect, test } from 'vitest'
import { words } from '../i18n.ts'

function sentences(value: unknown): readonly ((...values: string[]) => string)[] {
  if (typeof value === 'function') return [value as (...values: string[]) => string]
  return typeof value === 'object' && value !== null ? Object.values(value).flatMap(sentences) : []
}

test('every value that a sentence takes stands in it, in both languages', () => {
  for (const { settings, model, meter, made } of Object.values(words)) {
    const all = sentences({ settings, model, meter, made })
    expect(all.length).toBeGreaterThan(10)
    for (const sentence of all) {
      const values = Array.from({ length: sentence.length }, (_, at) => `‹${at}›`)
      for (const value of values) expect(sentence(...values)).toContain(value)
    }
  }
})
