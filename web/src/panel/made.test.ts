import { expect, test } from 'vitest'
import { Numbers, words } from '../i18n.ts'
import { figuresOf } from './made.ts'

const usage = { prompt_tokens: 12, completion_tokens: 1_234, cached_tokens: 0 }
const timings = { tokens_per_second: 45.67, first_token_seconds: 0.42 }

test('the figures are written as each language has them', () => {
  const said = (language: 'en' | 'zh'): readonly string[] =>
    figuresOf({ usage, timings }, words[language].made, new Numbers(language))
  expect(said('en')).toEqual(['1,234 tokens', '45.7 tokens/s', 'first after 0.4 sec'])
  expect(said('zh')).toEqual(['1,234 个词元', '每秒 45.7 个', '首字 0.4秒'])
})

test('what was not measured is not said', () => {
  const numbers = new Numbers('en')
  expect(figuresOf({ usage: null, timings: null }, words.en.made, numbers)).toEqual([])
  expect(figuresOf({ usage, timings: {} }, words.en.made, numbers)).toEqual(['1,234 tokens'])
})
