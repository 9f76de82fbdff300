/** Settings with a name: a few of ours, and the reader's own, which this browser keeps. */
import { kept } from '../storage.ts'
import type { Sampling, Settings } from '../stream/wire.ts'
import { NAMES, type NumberName } from './parameters.ts'
import { isSame, parsed, settingsIn } from './settings.ts'

export interface OwnPreset {
  readonly name: string
  readonly settings: Settings
}

export type BuiltIn = 'precise' | 'balanced' | 'creative'

/** `balanced` is what Qwen2's makers recommend for it. */
export const BUILT_IN: Readonly<Record<BuiltIn, Sampling>> = {
  precise: { temperature: 0.2, top_p: 0.9 },
  balanced: { temperature: 0.7, top_p: 0.8, top_k: 20 },
  creative: { temperature: 1.1, top_p: 0.95, min_p: 0.05 },
}
export const BUILT_INS = Object.keys(BUILT_IN) as readonly BuiltIn[]

/** What presets of ours say nothing about: the length and the repeatability of an answer. */
const LEFT_ALONE: readonly NumberName[] = ['seed', 'max_tokens']
const KEY = 'presets'
export const LONGEST_NAME = 40

/** The settings with one of our presets in them; with null, with the model's own way of drawing. */
export function withBuiltIn(settings: Settings, preset: BuiltIn | null): Settings {
  const { stop } = settings.sampling
  const left = LEFT_ALONE.flatMap((name) => {
    const value = settings.sampling[name]
    return value === undefined ? [] : [[name, value]]
  })
  const own = { ...Object.fromEntries(left), ...(stop ? { stop } : {}) }
  return { ...settings, sampling: { ...own, ...(preset && BUILT_IN[preset]) } }
}

/** The preset of ours that the settings are drawn with; null for the model's own, `other` for anything else. */
export function builtInOf({ sampling }: Settings): BuiltIn | null | 'other' {
  const drawn = NAMES.filter((name) => !LEFT_ALONE.includes(name))
  const isLike = (preset: Sampling): boolean =>
    drawn.every((name) => sampling[name] === preset[name])
  if (isLike({})) return null
  return BUILT_INS.find((name) => isLike(BUILT_IN[name])) ?? 'other'
}

export class Presets {
  own = $state.raw<readonly OwnPreset[]>(keptPresets())

  /** The reader's preset that says just this. */
  ownOf(settings: Settings): OwnPreset | null {
    return this.own.find((preset) => isSame(preset.settings, settings)) ?? null
  }

  /** A preset of the same name is replaced. */
  save(name: string, settings: Settings): void {
    const called = name.trim().slice(0, LONGEST_NAME)
    const others = this.own.filter((preset) => preset.name !== called)
    this.#keep([...others, { name: called, settings }])
  }

  remove(name: string): void {
    this.#keep(this.own.filter((preset) => preset.name !== name))
  }

  #keep(own: readonly OwnPreset[]): void {
    this.own = own
    kept.set(KEY, own.length === 0 ? '' : JSON.stringify(own))
  }
}

function keptPresets(): readonly OwnPreset[] {
  const found = parsed(kept.get(KEY))
  if (!Array.isArray(found)) return []
  return (found as Partial<OwnPreset>[]).flatMap((preset) =>
    typeof preset?.name === 'string'
      ? [{ name: preset.name, settings: settingsIn(preset.settings) }]
      : [],
  )
}
