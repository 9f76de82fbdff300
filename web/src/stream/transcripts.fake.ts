/** The transcripts of `wire/`, which the Python tests read too. */
import { readdirSync, readFileSync } from 'node:fs'
import type { Answer } from './fold.ts'

export type Told = Pick<
  Answer,
  'parts' | 'state' | 'finish' | 'error' | 'usage' | 'timings' | 'notes'
> & { last_id: string | null }

export interface Transcript {
  readonly name: string
  readonly bytes: Uint8Array
  readonly told: Told
}

const folder = new URL('../../../wire/transcripts/', import.meta.url)

export function transcripts(): Transcript[] {
  const names = readdirSync(folder).filter((name) => name.endsWith('.sse'))
  return names.map((file) => {
    const name = file.replace(/\.sse$/, '')
    const told = JSON.parse(readFileSync(new URL(`${name}.json`, folder), 'utf8')) as Told
    return { name, bytes: new Uint8Array(readFileSync(new URL(file, folder))), told }
  })
}

export function told(answer: Answer): Told {
  const { parts, state, finish, error, usage, timings, notes, lastId } = answer
  return { parts, state, last_id: lastId, finish, error, usage, timings, notes }
}
