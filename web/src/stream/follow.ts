/**
 * Follow a run: every event exactly once and in order, whatever the connection does.
 *
 * The cursor moves only with an event that has arrived whole, so a connection that is cut at any byte is
 * resumed without loss; what the server repeats is dropped; a gap ends the connection and is asked for again.
 */
import { StreamError } from './errors.ts'
import { connect, type Link, type Source } from './sse.ts'
import { decode, decodeLive, isNote, type LiveNews, type Note, type RunEvent } from './wire.ts'
import type { World } from './world.ts'

export type Followed =
  | { readonly type: 'link'; readonly link: Link }
  | { readonly type: 'items'; readonly items: readonly (RunEvent | Note)[] }
  /** Forget what was read: the log has another past, and it is told again from its first event. */
  | { readonly type: 'reset' }

export interface FollowOptions {
  readonly url: string
  readonly world: World
  readonly signal: AbortSignal
}

/**
 * Ends behind the run's terminal event, when the server has nothing more, or when `signal` is aborted.
 * Throws a `StreamError`: `expired`, `missing`, `forbidden`, `refused`.
 */
export async function* follow(options: FollowOptions): AsyncGenerator<Followed, void, undefined> {
  const { world, signal } = options
  while (!signal.aborted) {
    const reader = new RunReader(options.url)
    try {
      for await (const got of connect(reader, world, signal)) {
        yield typeof got === 'string' ? { type: 'link', link: got } : { type: 'items', items: got }
        if (reader.hasEnded) return
      }
      return
    } catch (error) {
      const isResettable = error instanceof StreamError && error.type === 'reset' && reader.hasRead
      if (!isResettable) throw error
      yield { type: 'reset' }
    }
  }
}

/** What happens on the server as a whole: which runs start and end, how the engine fares. */
export async function* followLive(
  options: FollowOptions,
): AsyncGenerator<Link | LiveNews[], void, undefined> {
  const source = { request: () => ({ url: options.url }), take: decodeLive }
  yield* connect(source, options.world, options.signal)
}

class RunReader implements Source<RunEvent | Note> {
  hasEnded = false
  readonly #url: string
  #seq = 0
  #id = ''

  constructor(url: string) {
    this.#url = url
  }

  get hasRead(): boolean {
    return this.#seq > 0
  }

  readonly request = (): { url: string; headers: Record<string, string> } => ({
    url: this.#url,
    headers: this.hasRead ? { 'Last-Event-ID': this.#id } : {},
  })

  readonly take: Source<RunEvent | Note>['take'] = (frame) => {
    const item = decode(frame)
    if (item === undefined || isNote(item)) return item
    if (item.seq <= this.#seq) return undefined
    if (item.seq > this.#seq + 1) {
      throw new StreamError('broken', `event ${item.seq} follows ${this.#seq}`)
    }
    this.#seq = item.seq
    this.#id = item.id
    this.hasEnded = item.kind === 'done' || item.kind === 'stopped' || item.kind === 'failed'
    return item
  }
}
