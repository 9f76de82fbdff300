/**
 * Follow a run: every event exactly once and in order, whatever the connection does.
 *
 * The cursor moves only with an event that has arrived whole, so a connection that is cut at any byte is
 * resumed without loss; what the server repeats is dropped; a gap ends the connection and is asked for again.
 */
import { StreamError } from './errors.ts'
import { connect, type Link, type Source } from './sse.ts'
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
  | { readonly type: 'items'; readonly items: readonly (RunEvent | Note)[] }

export interface FollowOptions {
  readonly url: string
  /** The last event that the reader has; null to read from the first. */
  readonly after: Place | null
  readonly world: World
  readonly signal: AbortSignal
}

/**
 * Ends behind the run's terminal event, when the server has nothing more, or when `signal` is aborted.
 *
 * Throws a `StreamError` that does not mend itself; after `reset` what was read is void, and the run is to
 * be read again from its start.
 */
export async function* follow(options: FollowOptions): AsyncGenerator<Followed, void, undefined> {
  const reader = new RunReader(options.url, options.after)
  for await (const got of connect(reader, options.world, options.signal)) {
    yield typeof got === 'string' ? { type: 'link', link: got } : { type: 'items', items: got }
    if (reader.hasEnded) return
  }
}

/** What happens on the server as a whole: which runs start and end, how the engine fares. */
export async function* followLive(
  options: Omit<FollowOptions, 'after'>,
): AsyncGenerator<Link | LiveNews[], void, undefined> {
  const source = { request: () => ({ url: options.url }), take: decodeLive }
  yield* connect(source, options.world, options.signal)
}

class RunReader implements Source<RunEvent | Note> {
  hasEnded = false
  readonly #url: string
  #last: Place | null

  constructor(url: string, after: Place | null) {
    this.#url = url
    this.#last = after
  }

  readonly request = (): { url: string; headers: Record<string, string> } => ({
    url: this.#url,
    headers: this.#last === null ? {} : { 'Last-Event-ID': this.#last.id },
  })

  readonly take: Source<RunEvent | Note>['take'] = (frame) => {
    const item = decode(frame)
    if (item === undefined || isNote(item)) return item
    const seq = this.#last?.seq ?? 0
    if (item.seq <= seq) return undefined
    if (item.seq > seq + 1) throw new StreamError('broken', `event ${item.seq} follows ${seq}`)
    this.#last = item
    this.hasEnded = item.kind === 'done' || item.kind === 'stopped' || item.kind === 'failed'
    return item
  }
}
