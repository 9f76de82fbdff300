import { expect, test } from 'vitest'
import { Numbers, words } from '../i18n.ts'
import { figuresOf } from './made.ts'

const usage = { prompt_tokens: 12, completion_tokens: 1_234, cached_tokens: 0 }
const timings = { tokens_per_second: 45.67, first_token_seconds: 0.42 }

test('the figures are written as each language has them', () => {
  const said = (language: 'en' | 'zh'): readonly string[] =>
    figuresOf({ usage, timings }, words[language].made, new Numbers(language))
  expect(said('en')).toEqual(['1,234 tokens', '45.7 tokens/s', 'first after 0.4 sec'])
  expect(said('zh')).toEqual(['1,234 个词元', '每秒 45.7 个', '首字 0.4 秒'])
})

test('of an answer that was broken off the tokens and the time are told', () => {
  const broken = { usage, timings: { total_seconds: 3.24 } }
  const said = (language: 'en' | 'zh'): readonly string[] =>
    figuresOf(broken, words[language].made, new Numbers(language))
  expect(said('en')).toEqual(['1,234 tokens', '3.2 sec in all'])
  expect(said('zh')).toEqual(['1,234 个词元', '共 3.2 秒'])
})

test('what was not measured is not said', () => {
  const numbers = new Numbers('en')
  expect(figuresOf({ usage: null, timings: null }, words.en.made, numbers)).toEqual([])
  const nothing = { ...usage, completion_tokens: 0 }
  expect(figuresOf({ usage: nothing, timings: {} }, words.en.made, numbers)).toEqual([])
  expect(figuresOf({ usage, timings: {} }, words.en.made, numbers)).toEqual(['1,234 tokens'])
})
