import { expect, test } from 'vitest'
import { languageOf, Numbers, preferred, problemText, words } from './i18n.ts'

type Shape = { [key: string]: Shape | string }

/** The keys, and what stands behind each: a text, or how many values it takes. */
function shape(value: unknown): Shape | string {
  if (typeof value === 'function') return `takes ${value.length}`
  if (typeof value === 'string') return value.trim() === '' ? 'empty' : 'text'
  return Object.fromEntries(
    Object.entries(value as object).map(([key, inner]) => [key, shape(inner)]),
  )
}

test('both languages say the same things', () => {
  expect(shape(words.zh)).toEqual(shape(words.en))
  expect(JSON.stringify(shape(words.en))).not.toContain('"empty"')
})

test('every value that a sentence takes stands in it, in both languages', () => {
  for (const {
    blocks,
    leftOut,
    phase,
    ofBytes,
    perSecond,
    timeLeft,
    problem,
    talk,
  } of Object.values(words)) {
    for (const sentence of [
      ...[blocks.loadImage, leftOut, phase.queued],
      ...[perSecond, timeLeft, problem.other, talk.notText, talk.unreadable],
    ]) {
      expect(sentence('‹1›')).toContain('‹1›')
    }
    expect(ofBytes('‹1›', '‹2›')).toMatch(/‹1›.*‹2›/)
    expect(talk.version('‹1›', '‹2›')).toMatch(/‹1›.*‹2›/)
    expect(talk.tooLarge('‹1›', '‹2›')).toMatch(/‹1›.*‹2›/)
  }
})

test('Chinese sentences are Chinese', () => {
  const { language: _name, ...sentences } = words.zh
  const texts = JSON.stringify(sentences).match(/(?<=:")[^"]+/g) ?? []
  expect(texts.length).toBeGreaterThan(40)
  for (const text of texts) expect(text).toMatch(/\p{Script=Han}/u)
})

test.each([
  [['zh-CN', 'en'], 'zh'],
  [['zh-Hant-TW'], 'zh'],
  [['de-DE', 'en-GB'], 'en'],
  [['fr'], 'en'],
  [[], 'en'],
] as const)('%j prefers %s', (languages, language) => {
  expect(preferred(languages)).toBe(language)
})

test('a failure is told by its code, an unknown one by the server', () => {
  expect(problemText(words.en, { code: 'queue_full', message: 'x' })).toBe(
    words.en.problem.queue_full,
  )
  expect(problemText(words.en, { code: 'brand_new', message: 'details' })).toContain('details')
  expect(problemText(words.en, { code: 'other', message: 'details' })).toContain('details')
  expect(problemText(words.en, { code: 'toString', message: 'details' })).toContain('details')
})

test.each([
  ['流式输出是什么？', 'zh'],
  ['What is 流式 output?', 'en'],
  ['请解释 token 的含义', 'zh'],
  ['1 + 1 = 2 👍', null],
  ['ストリーミングとは何ですか', 'ja'],
  ['スト是日语词“流”的一部分，不必在意。', 'zh'],
  ['스트리밍이란 무엇입니까?', 'ko'],
  ['```python\nfor token in stream:\n    print(token)\n```\n这段代码逐个打印。', 'zh'],
  ['~~~\nall of it is code', null],
] as const)('%s is %s', (text, language) => {
  expect(languageOf(text)).toBe(language)
})

test('numbers are written for people', () => {
  const en = new Numbers('en')
  expect(en.share(0.999)).toBe('99%')
  expect(en.bytes(397_800_000)).toBe('397.8 MB')
  expect(en.duration(0.2)).toBe('1 sec')
  expect(en.duration(89)).toBe('89 sec')
  expect(en.duration(200)).toBe('3 min')
  expect(new Numbers('zh').duration(200)).toBe('3 分钟')
})
