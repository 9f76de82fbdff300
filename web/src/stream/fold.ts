/** The answer that a run's events tell. Pure: the same events give the same answer, whoever folds them. */
import { StreamError } from './errors.ts'
import { GrowingText } from './text.ts'
import {
  isNote,
  isTerminal,
  type Channel,
  type Failure,
  type Figures,
  type Note,
  type Part,
  type Place,
  type RunEvent,
  type RunState,
  type Timings,
  type Usage,
} from './wire.ts'

export type Notes = Readonly<{ [K in Note['key']]?: Extract<Note, { key: K }> }>

export interface Answer {
  readonly parts: readonly Part[]
  readonly state: RunState
  readonly lastSeq: number
  readonly lastId: string | null
  readonly notes: Notes
  readonly model: string | null
  /** Messages of the conversation that the model was not told; null before that is known. */
  readonly leftOut: number | null
  readonly finish: 'stop' | 'length' | null
  readonly error: Failure | null
  readonly usage: Usage | null
  readonly timings: Timings | null
}

/** An answer before anything is read: what earlier runs of its message left, or what it was at `after`. */
export function blank(base: readonly Part[] = [], after: Place | null = null): Answer {
  return {
    parts: base,
    state: after === null ? 'queued' : 'running',
    lastSeq: after?.seq ?? 0,
    lastId: after?.id ?? null,
    notes: {},
    model: null,
    leftOut: null,
    finish: null,
    error: null,
    usage: null,
    timings: null,
  }
}

/** Add what was read. An event that is already in is ignored; throws `broken` where one is missing. */
export function fold(answer: Answer, items: readonly (RunEvent | Note)[]): Answer {
  return items.reduce(
    (so, item) => (isNote(item) ? withNote(so, item) : withEvent(so, item)),
    answer,
  )
}

/** The answer itself, without thinking. */
export function textOf(parts: readonly Part[]): string {
  return parts.map((part) => (part.type === 'text' ? part.text : '')).join('')
}

function withNote(answer: Answer, note: Note): Answer {
  if (isTerminal(answer.state)) return answer
  if (note.key === 'queued' && note.place === 0) {
    return { ...answer, notes: without(answer.notes, 'queued') }
  }
  return { ...answer, notes: { ...answer.notes, [note.key]: note } }
}

function withEvent(answer: Answer, event: RunEvent): Answer {
  if (event.seq <= answer.lastSeq) return answer
  if (event.seq !== answer.lastSeq + 1) {
    throw new StreamError('broken', `event ${event.seq} follows ${answer.lastSeq}`)
  }
  return tell({ ...answer, lastSeq: event.seq, lastId: event.id }, event)
}

function tell(answer: Answer, event: RunEvent): Answer {
  switch (event.kind) {
    case 'started':
      return {
        ...answer,
        state: 'running',
        model: event.data.model,
        leftOut: event.data.left_out ?? 0,
      }
    case 'text':
      return {
        ...answer,
        parts: append(answer.parts, event.data.channel ?? 'text', event.data.text),
        // They were about the wait before this text; the server has no reason to take them back.
        notes: without(answer.notes, 'queued', 'prefill'),
      }
    case 'done':
      return { ...answer, ...event.data, state: 'done', notes: {} }
    case 'stopped':
      return { ...brokenOff(answer, event.data), state: 'stopped' }
    case 'failed': {
      const { code, message, retryable } = event.data
      const error = { code, message, retryable }
      return { ...brokenOff(answer, event.data), state: 'failed', error }
    }
    case 'unknown':
      return answer
  }
}

function brokenOff(answer: Answer, { usage, timings }: Partial<Figures>): Answer {
  return { ...answer, usage: usage ?? null, timings: timings ?? null, notes: {} }
}

function append(parts: readonly Part[], type: Channel, text: string): readonly Part[] {
  const last = parts.at(-1)
  if (last?.type !== type) return [...parts, grown(type, GrowingText.of(text))]
  return parts.with(-1, grown(type, growingText(last).grow(text)))
}

const growing = new WeakMap<Part, GrowingText>()

/** The text of a part for whoever draws it while it grows: `text` makes a copy of all of it each time. */
export function growingText(part: Part): GrowingText {
  const known = growing.get(part) ?? GrowingText.of(part.text)
  growing.set(part, known)
  return known
}

function grown(type: Channel, text: GrowingText): Part {
  const part: Part = {
    type,
    get text() {
      return text.toString()
    },
  }
  growing.set(part, text)
  return part
}

function without(notes: Notes, ...keys: Note['key'][]): Notes {
  if (!keys.some((key) => key in notes)) return notes
  return Object.fromEntries(
    Object.entries(notes).filter(([key]) => !keys.includes(key as Note['key'])),
  )
}
