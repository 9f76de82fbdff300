import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { problemText, words } from './i18n.ts'
import { knownCode, REMEDIES, remediesFor } from './remedies.ts'

const PROTOCOL = documentation('protocol.md')
/** Told in the server's words, which name the place in the file. */
const IN_ITS_OWN_WORDS = ['bad_import']

function documentation(name: string): string {
  return readFileSync(new URL(`../../docs/${name}`, import.meta.url), 'utf8')
}

/** The codes in the first column of a table. */
function codesIn(section: string): readonly string[] {
  return [...section.matchAll(/^\| (`[^|]+`) \|/gm)].flatMap(([, cell]) =>
    [...(cell ?? '').matchAll(/`(\w+)`/g)].map(([, code]) => code ?? ''),
  )
}

/** The codes that the protocol lists. */
function documented(): readonly string[] {
  return codesIn(
    PROTOCOL.slice(PROTOCOL.indexOf('### Codes'), PROTOCOL.indexOf('### Single tokens')),
  )
}

test('every code of the protocol has a sentence in both languages', () => {
  const codes = documented().filter((code) => !IN_ITS_OWN_WORDS.includes(code))
  expect(codes.length).toBeGreaterThan(40)
  for (const code of codes) {
    expect(knownCode(code), code).not.toBeNull()
    for (const language of [words.en, words.zh]) {
      expect(problemText(language, { code, message: '‹the server’s›' })).not.toContain('‹')
    }
  }
})

test('whatever keeps a model from loading is told in the language of the page', () => {
  const models = documentation('models.md')
  const codes = codesIn(models.slice(models.indexOf('## Errors'), models.indexOf('## Memory')))
  expect(codes.length).toBeGreaterThan(10)
  expect(codes.filter((code) => knownCode(code) === null)).toEqual([])
})

test('every code that the page knows is in the protocol', () => {
  const codes = documented()
  const unheard = Object.keys(REMEDIES).filter(
    (code) => code !== 'offline' && !codes.includes(code),
  )
  expect(unheard).toEqual([])
})

test('asking for the same again is offered only where it can be another answer', () => {
  for (const code of ['prompt_too_long', 'body_too_large', 'unsupported_parameter', 'chat_deleted'])
    expect(remediesFor({ code })).not.toContain('again')
  expect(remediesFor({ code: 'queue_full' })).toEqual(['again'])
})

test('what no code of ours says, its kind does', () => {
  expect(remediesFor({ code: 'brand_new', retryable: true })).toEqual(['again'])
  expect(remediesFor({ code: 'brand_new', retryable: false })).toEqual(['edit'])
  expect(remediesFor({ code: 'brand_new', type: 'busy' })).toEqual(['again'])
  expect(remediesFor({ code: 'http_418', type: 'refused' })).toEqual(['edit'])
  expect(remediesFor({ code: 'model_corrupt', type: 'busy' })).toEqual(['again'])
})
