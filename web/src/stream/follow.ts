/**
 * Follow a run: every event exactly once and in order, whatever the connection does.
 *
 * The cursor moves only with an event that has arrived whole, so a connection that is cut at any byte is
 * resumed without loss; what the server repeats is dropped; a gap ends the connection and is asked for again.
 */
import { StreamError } from './errors.ts'
import type { Source } from './line.ts'
import type { Network } from './network.ts'
import { connect, type Link } from './sse.ts'
import {
  decode,
  decodeLive,
  isNote,
  type LiveNews,
  type Note,
  type Place,
  type RunEvent,
} from './wire.ts'
import type { World } from './world.ts'

export type Followed =
  | { readonly type: 'link'; readonly link: Link }
  | {
      readonly type: 'items'
      readonly items: readonly (RunEvent | Note)[]
      /** They were said before this connection, so nobody waits to see them come. */
      readonly isReplay: boolean
    }

/** Where streams are held back, a lump a second is what the page can still make flow. */
const RUN_POLL_MS = 1_000
/** Of the server as a whole, nothing is urgent. */
const LIVE_POLL_MS = 10_000

export interface FollowOptions {
  readonly url: string
  /** The last event that the reader has; null to read from the first. */
  readonly after: Place | null
  readonly world: World
  readonly signal: AbortSignal
  /** What all streams of the page know of their way; by default each finds out for itself. */
  readonly network?: Network
}

/**
 * Ends behind the run's terminal event, when the server has nothing more, or when `signal` is aborted.
 *
 * Throws a `StreamError` that does not mend itself; after `reset` what was read is void, and the run is to
 * be read again from its start.
 */
export async function* follow(options: FollowOptions): AsyncGenerator<Followed, void, undefined> {
  const reader = new RunReader(options.url, options.after)
  for await (const got of connect(reader, { ...options, pollMs: RUN_POLL_MS })) {
    if (typeof got === 'string') yield { type: 'link', link: got }
    else yield { type: 'items', items: got, isReplay: reader.isReplay(got) }
    if (reader.hasEnded) return
  }
}

/** What happens on the server as a whole: which runs start and end, how the engine fares. */
export async function* followLive(
  options: Omit<FollowOptions, 'after'>,
): AsyncGenerator<Link | LiveNews[], void, undefined> {
  const source = { request: () => ({ url: options.url }), take: decodeLive }
  yield* connect(source, { ...options, pollMs: LIVE_POLL_MS })
}

class RunReader implements Source<RunEvent | Note> {
  hasEnded = false
  readonly #url: string
  #last: Place | null
  #stored = 0

  constructor(url: string, after: Place | null) {
    this.#url = url
    this.#last = after
  }

  readonly request = (): { url: string; headers: Record<string, string> } => ({
    url: this.#url,
    headers: this.#last === null ? {} : { 'Last-Event-ID': this.#last.id },
  })

  isReplay(items: readonly (RunEvent | Note)[]): boolean {
    return items.some((item) => !isNote(item) && item.seq <= this.#stored)
  }

  readonly take: Source<RunEvent | Note>['take'] = (frame) => {
    const item = decode(frame)
    if (item === undefined) return undefined
    if (isNote(item)) return this.#hear(item)
    const seq = this.#last?.seq ?? 0
    if (item.seq <= seq) return undefined
    if (item.seq > seq + 1) throw new StreamError('broken', `event ${item.seq} follows ${seq}`)
    this.#last = item
    this.hasEnded = item.kind === 'done' || item.kind === 'stopped' || item.kind === 'failed'
    return item
  }

  /** How much the server had stored is about the connection, not about the run. */
  #hear(note: Note): Note | undefined {
    if (note.key !== 'stored') return note
    this.#stored = note.seq
    return undefined
  }
}
