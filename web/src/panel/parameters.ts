/**
 * The sampling parameters: what each may be, and the way from what a reader types to it and back. The bounds
 * are those of api/wire/chats.schema.json, by which the server is held too.
 */
import type { Sampling } from '../stream/wire.ts'

export type NumberName = Exclude<keyof Sampling, 'stop'>

export interface Bounds {
  readonly minimum: number
  readonly maximum: number
  /** The minimum itself is not allowed. */
  readonly isOpen?: boolean
  readonly isWhole?: boolean
}

export const NUMBERS: Readonly<Record<NumberName, Bounds>> = {
  temperature: { minimum: 0, maximum: 5 },
  top_p: { minimum: 0, maximum: 1, isOpen: true },
  top_k: { minimum: 0, maximum: 1_000_000, isWhole: true },
  min_p: { minimum: 0, maximum: 1 },
  repetition_penalty: { minimum: 0, maximum: 10, isOpen: true },
  presence_penalty: { minimum: -2, maximum: 2 },
  frequency_penalty: { minimum: -2, maximum: 2 },
  seed: { minimum: 0, maximum: 2_147_483_647, isWhole: true },
  max_tokens: { minimum: 1, maximum: 10_000_000, isWhole: true },
}

export const NAMES = Object.keys(NUMBERS) as readonly NumberName[]
export const MOST_STOPS = 16
export const LONGEST_STOP = 256
export const LONGEST_SYSTEM = 32_768

export type NumberProblem = 'number' | 'whole' | 'bounds'

/** Null where nothing is typed: the model's own. */
export type Read = { readonly value: number | null } | { readonly problem: NumberProblem }

/** Full-width digits, as Chinese keyboards write them, and a decimal comma are understood. */
export function readNumber(name: NumberName, typed: string): Read {
  const text = typed
    .normalize('NFKC')
    .trim()
    .replace('−', '-')
    .replace(/^(-?\d*),(\d+)$/, '$1.$2')
  if (text === '') return { value: null }
  if (!/^-?(\d+\.?\d*|\.\d+)(e-?\d+)?$/i.test(text)) return { problem: 'number' }
  const value = Number(text)
  const { minimum, maximum, isOpen, isWhole } = NUMBERS[name]
  if (isWhole && !Number.isInteger(value)) return { problem: 'whole' }
  const isWithin = (isOpen ? value > minimum : value >= minimum) && value <= maximum
  return isWithin ? { value } : { problem: 'bounds' }
}

/** One stop text a line; `\n`, `\t` and `\\` stand for what a line cannot hold. */
export function readStops(typed: string): readonly string[] {
  return typed.split('\n').filter(Boolean).map(unescaped)
}

export function writeStops(stops: readonly string[]): string {
  return stops.map(escaped).join('\n')
}

export type StopsProblem = 'many' | 'long'

export function stopsProblem(stops: readonly string[]): StopsProblem | null {
  if (stops.length > MOST_STOPS) return 'many'
  return stops.some((stop) => [...stop].length > LONGEST_STOP) ? 'long' : null
}

function escaped(text: string): string {
  return text.replaceAll('\\', '\\\\').replaceAll('\n', '\\n').replaceAll('\t', '\\t')
}

function unescaped(line: string): string {
  const characters: Readonly<Record<string, string>> = { n: '\n', t: '\t', '\\': '\\' }
  return line.replace(/\\([nt\\])/g, (_all, letter: string) => characters[letter] ?? letter)
}
