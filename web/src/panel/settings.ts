/** What a chat's answers are asked for with, and what of it is kept for a chat that is not there yet. */
import { kept } from '../storage.ts'
import type { Sampling, Settings } from '../stream/wire.ts'
import { LONGEST_SYSTEM, NAMES, readNumber, stopsProblem } from './parameters.ts'

const NAME = 'settings.new'

/** Everything as the model has it. */
export const UNSET: Settings = { system: null, sampling: {} }

export function keptSettings(): Settings {
  return settingsIn(parsed(kept.get(NAME)))
}

export function keepSettings(settings: Settings): void {
  kept.set(NAME, isUnset(settings) ? '' : JSON.stringify(settings))
}

export function isUnset({ system, sampling }: Settings): boolean {
  return system === null && Object.keys(sampling).length === 0
}

export function isSame(one: Settings, other: Settings): boolean {
  return canonical(one) === canonical(other)
}

/** Of something that was kept, by this page or another version of it, what the server would take. */
export function settingsIn(found: unknown): Settings {
  const { system, sampling } = fieldsOf(found)
  const isSystem = typeof system === 'string' && system !== '' && system.length <= LONGEST_SYSTEM
  return { system: isSystem ? system : null, sampling: samplingIn(sampling) }
}

export function parsed(text: string | null): unknown {
  try {
    return JSON.parse(text ?? 'null')
  } catch {
    // Somebody else has written there: as good as nothing.
    return null
  }
}

function samplingIn(found: unknown): Sampling {
  const fields = fieldsOf(found)
  const stop = fields['stop']
  const numbers = NAMES.flatMap((name) => {
    const value = fields[name]
    const read = typeof value === 'number' ? readNumber(name, String(value)) : null
    return read && 'value' in read && read.value !== null ? [[name, read.value]] : []
  })
  return { ...Object.fromEntries(numbers), ...(areStops(stop) ? { stop } : {}) }
}

function areStops(found: unknown): found is readonly string[] {
  return (
    Array.isArray(found) &&
    found.length > 0 &&
    found.every((stop) => typeof stop === 'string' && stop !== '') &&
    stopsProblem(found as string[]) === null
  )
}

function fieldsOf(found: unknown): Readonly<Record<string, unknown>> {
  return typeof found === 'object' && found !== null ? (found as Record<string, unknown>) : {}
}

function canonical({ system, sampling }: Settings): string {
  return JSON.stringify([
    system,
    ...NAMES.map((name) => sampling[name] ?? null),
    sampling.stop ?? [],
  ])
}
