import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { MemoryStorage } from '../storage.fake.ts'
import type { Settings } from '../stream/wire.ts'
import { SettingsForm } from './form.svelte.ts'
import { LONGEST_SYSTEM } from './parameters.ts'
import { builtInOf, Presets, withBuiltIn } from './presets.svelte.ts'
import { isSame, isUnset, keepSettings, keptSettings, settingsIn, UNSET } from './settings.ts'

beforeEach(() => {
  vi.stubGlobal('localStorage', new MemoryStorage())
})

afterEach(() => {
  vi.unstubAllGlobals()
})

const FULL: Settings = {
  system: 'Be brief.',
  sampling: { temperature: 0.5, top_k: 0, seed: 7, max_tokens: 100, stop: ['\n\n', '。'] },
}

test('settings are kept until there is a chat for them', () => {
  keepSettings(FULL)
  expect(isSame(keptSettings(), FULL)).toBe(true)
  keepSettings(UNSET)
  expect(isUnset(keptSettings())).toBe(true)
  expect(localStorage.getItem('inkstream.settings.new')).toBeNull()
})

test('of what else is found only what the server takes is used', () => {
  localStorage.setItem('inkstream.settings.new', '{"system": ')
  expect(keptSettings()).toEqual(UNSET)
  expect(settingsIn([1])).toEqual(UNSET)
  const sampling = { temperature: 9, top_p: 0.5, top_k: '3', colour: 1, stop: ['', 'a'] }
  expect(settingsIn({ system: 5, sampling })).toEqual({ system: null, sampling: { top_p: 0.5 } })
  expect(settingsIn({ system: 'x'.repeat(LONGEST_SYSTEM + 1) })).toEqual(UNSET)
})

test('a form shows settings and gives them back', () => {
  const form = new SettingsForm(FULL)
  expect(form.text('temperature')).toBe('0.5')
  expect(form.text('min_p')).toBe('')
  expect(form.settings).toEqual(FULL)
  form.fill(UNSET)
  expect(isUnset(form.settings)).toBe(true)
})

test('a form tells what is wrong, field by field', () => {
  const form = new SettingsForm(UNSET)
  expect(form.isRight).toBe(true)
  form.type('temperature', 'warm')
  form.type('top_k', '1.5')
  form.stops = 'x\n'.repeat(17)
  form.system = 'x'.repeat(LONGEST_SYSTEM + 1)
  expect(form.isRight).toBe(false)
  expect(form.problems).toEqual({
    system: true,
    stop: 'many',
    numbers: { temperature: 'number', top_k: 'whole' },
  })
  form.fill(UNSET)
  expect(form.isRight).toBe(true)
})

test('a preset of ours changes how is drawn, and nothing else', () => {
  const precise = withBuiltIn({ ...FULL, sampling: { ...FULL.sampling, min_p: 0.1 } }, 'precise')
  expect(precise).toEqual({
    system: 'Be brief.',
    sampling: { temperature: 0.2, top_p: 0.9, seed: 7, max_tokens: 100, stop: ['\n\n', '。'] },
  })
  expect(builtInOf(precise)).toBe('precise')
  expect(builtInOf(withBuiltIn(precise, null))).toBeNull()
  expect(builtInOf(FULL)).toBe('other')
})

test('presets of one’s own outlive the page; the same name replaces', () => {
  const presets = new Presets()
  presets.save(' poems ', FULL)
  presets.save('code', UNSET)
  presets.save('poems', precise)
  const again = new Presets()
  expect(again.own.map(({ name }) => name)).toEqual(['code', 'poems'])
  expect(again.ownOf(precise)?.name).toBe('poems')
  again.remove('code')
  again.remove('poems')
  expect(new Presets().own).toEqual([])
  expect(localStorage.getItem('inkstream.presets')).toBeNull()
})

const precise = withBuiltIn(FULL, 'precise')
