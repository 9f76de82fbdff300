/**
 * The words of the wire, as docs/protocol.md has them, and the way from a server-sent event to them.
 *
 * Unknown kinds, keys and fields are let through or ignored, so that an older page reads a newer server.
 */
import { StreamError } from './errors.ts'

export type Channel = 'text' | 'thinking'

export interface Part {
  readonly type: Channel
  readonly text: string
}

export interface Usage {
  readonly prompt_tokens: number
  readonly completion_tokens: number
  readonly cached_tokens: number
}

export type Timings = Readonly<Record<string, number>>

/** What an answer has taken. Of one that was broken off it may be unknown. */
export interface Figures {
  readonly usage: Usage
  readonly timings: Timings
}

export interface Failure {
  readonly code: string
  readonly message: string
  readonly retryable: boolean
}

/** Sampling parameters; what is left out is the model's default. */
export interface Sampling {
  readonly temperature?: number
  readonly top_p?: number
  readonly top_k?: number
  readonly min_p?: number
  readonly repetition_penalty?: number
  readonly presence_penalty?: number
  readonly frequency_penalty?: number
  readonly seed?: number
  readonly max_tokens?: number
  readonly stop?: readonly string[]
}

/** What the answers of a chat are asked for with. */
export interface Settings {
  readonly system: string | null
  readonly sampling: Sampling
}

/** What an answer was asked for with, and is written with once its run is pinned. */
export interface MadeWith {
  readonly model: string | null
  readonly system: string | null
  readonly sampling: Sampling
}

export type RunState = 'queued' | 'running' | 'done' | 'stopped' | 'failed'

/** Where an event stands. `id` is opaque to everybody but the log and goes back as `Last-Event-ID`. */
export interface Place {
  readonly id: string
  readonly seq: number
}

export interface Started {
  readonly model: string
  readonly seed: number
  /** Messages of the conversation that did not fit the context. */
  readonly left_out?: number
}

export type RunEvent = Place &
  (
    | { readonly kind: 'started'; readonly data: Started }
    | {
        readonly kind: 'text'
        readonly data: { readonly text: string; readonly channel?: Channel }
      }
    | {
        readonly kind: 'done'
        readonly data: Figures & { readonly finish: 'stop' | 'length' }
      }
    | { readonly kind: 'stopped'; readonly data: Partial<Figures> }
    | { readonly kind: 'failed'; readonly data: Failure & Partial<Figures> }
    | { readonly kind: 'unknown' }
  )

export type EnginePhase = 'connecting' | 'downloading' | 'loading' | 'ready' | 'given_up'

export interface DownloadDetail {
  readonly file?: string
  readonly source?: string
  readonly done_bytes?: number
  readonly total_bytes?: number | null
  readonly bytes_per_second?: number | null
  readonly seconds_left?: number | null
  /** What it is waiting for, where it is. */
  readonly note?: { readonly en: string; readonly zh: string } | null
  /** What is being done while it loads. */
  readonly step?: { readonly en: string; readonly zh: string }
  /** What users of this engine must be told, whatever it does. */
  readonly notice?: { readonly en: string; readonly zh: string }
}

export type SwitchStage = 'fetching' | 'waiting' | 'loading' | 'returning' | 'failed'

/** Another model is being put into the engine, or could not be. */
export interface Switch {
  readonly model: string
  readonly stage: SwitchStage
  readonly share: number | null
  readonly detail: DownloadDetail
  /** How many answers are waited for. */
  readonly answers: number
  readonly code: string | null
  readonly message: string | null
}

export interface EngineStatus {
  readonly phase: EnginePhase
  readonly share?: number | null
  readonly detail?: DownloadDetail
  readonly code?: string | null
  readonly message?: string | null
  readonly switch?: Switch | null
}

/** What is in an engine that is ready. */
export interface Model {
  readonly model: string
  readonly engine: string
  /** How its weights are stored, where that is known. */
  readonly quantization: string | null
  readonly context_length: number
  readonly defaults: Sampling
}

/** A volatile remark beside the events. It has no number; the newest of each key counts. */
export type Note =
  | { readonly key: 'queued'; readonly place: number }
  | ({ readonly key: 'engine' } & EngineStatus)
  | { readonly key: 'prefill'; readonly share: number }
  | { readonly key: 'log_unwritable'; readonly message: string }
  /** First on a connection: events up to this one were said before it. */
  | { readonly key: 'stored'; readonly seq: number }

export interface Chat {
  readonly id: string
  readonly title: string
  readonly created_at: number
  readonly updated_at: number
  readonly settings: Settings
  /** Where a search has found it. */
  readonly match?: Match
}

export interface Match {
  /** Null for the title. */
  readonly message: string | null
  readonly snippet: string
  /** Where the query stands in the snippet. */
  readonly hits: readonly (readonly [start: number, end: number])[]
}

export interface Message {
  readonly id: string
  readonly chat: string
  readonly parent: string | null
  readonly role: 'user' | 'assistant'
  readonly parts: readonly Part[]
  readonly created_at: number
  readonly run: string | null
  /** Up to where `parts` tells the run, while it lives: follow it from there. Null for its start. */
  readonly last_id: string | null
  readonly state: RunState
  readonly finish: 'stop' | 'length' | null
  readonly error: Failure | null
  readonly usage: Usage | null
  readonly timings: Timings | null
  readonly made_with: MadeWith | null
  /** How many messages before it the model was not shown. */
  readonly left_out: number
}

export interface Run {
  readonly id: string
  /** Null where the run was not asked for in a chat. */
  readonly chat: string | null
  readonly message: string | null
  readonly state: RunState
  readonly last_seq: number
  readonly stop_requested: boolean
  readonly created_at: number
  readonly ended_at: number | null
}

/** What `/api/live` says. */
export type LiveNews =
  | {
      readonly type: 'snapshot'
      readonly runs: readonly Run[]
      readonly engine: EngineStatus & Partial<Model>
      /** The build of the page that the server has now. */
      readonly build?: string | null
    }
  | { readonly type: 'run'; readonly run: Run }
  | ChatNews
  | { readonly type: 'engine'; readonly status: EngineStatus & Partial<Model> }

type Snapshot = Extract<LiveNews, { type: 'snapshot' }>

/** What has become of a chat; null where it was deleted. */
export interface ChatNews {
  readonly type: 'chat'
  readonly id: string
  readonly chat: Chat | null
}

/** A server-sent event as it came. */
export interface Frame {
  readonly id: string | undefined
  readonly event: string
  readonly data: string
}

export function isTerminal(state: RunState): boolean {
  return state === 'done' || state === 'stopped' || state === 'failed'
}

export function isNote(item: RunEvent | Note): item is Note {
  return 'key' in item
}

/** Read a frame of a run's stream; undefined for what this page does not know. Throws `broken`. */
export function decode(frame: Frame): RunEvent | Note | undefined {
  const data = record(frame)
  if (frame.event === 'note') return asNote(data)
  if (frame.id === undefined) return undefined
  return asEvent(frame.event, placeOf(frame.id), data)
}

/** Read a frame of `/api/live`; undefined for what this page does not know. Throws `broken`. */
export function decodeLive(frame: Frame): LiveNews | undefined {
  const data = record(frame)
  switch (frame.event) {
    case 'snapshot':
      return { type: 'snapshot', ...(data as unknown as Omit<Snapshot, 'type'>) }
    case 'run':
      return { type: 'run', run: data as unknown as Run }
    case 'chat':
      return { type: 'chat', ...(data as unknown as { id: string; chat: Chat | null }) }
    case 'engine':
      return { type: 'engine', status: data as unknown as EngineStatus }
    default:
      return undefined
  }
}

type Fields = Readonly<Record<string, unknown>>

function record(frame: Frame): Fields {
  let value: unknown
  try {
    value = JSON.parse(frame.data)
  } catch {
    throw broken(frame, 'is not JSON')
  }
  if (typeof value !== 'object' || value === null) throw broken(frame, 'is not an object')
  return value as Fields
}

/** Throws `broken` for an id that no log has given. */
export function placeOf(id: string): Place {
  const seq = Number(/^\d+:(\d+)$/.exec(id)?.[1])
  if (!Number.isSafeInteger(seq))
    throw new StreamError('broken', `event id '${id}' is not EPOCH:SEQ`)
  return { id, seq }
}

function asEvent(kind: string, place: Place, data: Fields): RunEvent {
  switch (kind) {
    case 'text':
      if (typeof data['text'] !== 'string') {
        throw new StreamError('broken', `text event ${place.id} has no text`)
      }
      return { ...place, kind, data: data as { text: string } }
    case 'started':
      return { ...place, kind, data: data as unknown as Started }
    case 'done':
      return { ...place, kind, data: data as unknown as Figures & { finish: 'stop' } }
    case 'failed':
      return { ...place, kind, data: data as unknown as Failure & Partial<Figures> }
    case 'stopped':
      return { ...place, kind, data: data as Partial<Figures> }
    default:
      return { ...place, kind: 'unknown' }
  }
}

function asNote(data: Fields): Note | undefined {
  const isKnown =
    (data['key'] === 'queued' && typeof data['place'] === 'number') ||
    (data['key'] === 'engine' && typeof data['phase'] === 'string') ||
    (data['key'] === 'prefill' && typeof data['share'] === 'number') ||
    (data['key'] === 'stored' && typeof data['seq'] === 'number') ||
    data['key'] === 'log_unwritable'
  return isKnown ? (data as unknown as Note) : undefined
}

function broken(frame: Frame, why: string): StreamError {
  return new StreamError('broken', `data of '${frame.event}' ${frame.id ?? ''} ${why}`)
}
