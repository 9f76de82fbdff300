import { expect, test } from 'vitest'
import { Numbers, words, type Language } from '../i18n.ts'
import type { Switch, SwitchStage } from '../stream/wire.ts'
import { switchText } from './text.ts'

function said(stage: SwitchStage, more: Partial<Switch> = {}, language: Language = 'en'): string {
  const nothing = { share: null, detail: {}, answers: 0, code: null, message: null }
  const told = { model: 'qwen2-1.5b', stage, ...nothing, ...more }
  return switchText(words[language].model, new Numbers(language), told)
}

test.each(['en', 'zh'] as const)(
  'every stage of a switch has a sentence of its own, in %s',
  (language) => {
    const stages: readonly SwitchStage[] = ['fetching', 'waiting', 'loading', 'returning', 'failed']
    const sentences = stages.map((stage) => said(stage, {}, language))
    expect(new Set(sentences).size).toBe(stages.length)
    for (const sentence of sentences.filter((_, at) => stages[at] !== 'returning'))
      expect(sentence).toContain('qwen2-1.5b')
  },
)

test('how much of a stage is done is said where it is known', () => {
  expect(said('fetching', { share: 0.429 })).toBe('Fetching qwen2-1.5b 42%')
  expect(said('loading')).toBe('Loading qwen2-1.5b')
})

test('a switch that failed says why', () => {
  expect(said('failed', { message: 'There is no file x.' })).toBe(
    'No switch to qwen2-1.5b. There is no file x.',
  )
})
