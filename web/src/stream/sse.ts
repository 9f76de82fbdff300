/**
 * Server-sent events over fetch that survive whatever the connection does.
 *
 * Unlike EventSource it gives up only where asking again is pointless, notices a connection that is open but
 * dead, lets go of the server while nobody looks, and lets its caller refuse what it is sent. It knows
 * nothing of runs: a `Source` says what to ask for and what a frame means.
 */
import { createParser } from 'eventsource-parser'
import { BackOff, pause, shown } from './backoff.ts'
import { StreamError } from './errors.ts'
import type { Frame } from './wire.ts'
import type { World } from './world.ts'

/** Two and a half heartbeats: one may be late, two in a row are not. */
const SILENCE_MS = 25_000

export type Link = 'connecting' | 'open' | 'lost'

export interface Source<Item> {
  /** Asked before every attempt, so that the cursor in it is fresh. */
  readonly request: () => { readonly url: string; readonly headers?: Record<string, string> }
  /** The meaning of a frame, or undefined to skip it. A `StreamError` ends this connection. */
  readonly take: (frame: Frame) => Item | undefined
}

/**
 * What the source makes of the frames, in lists as they arrive, and how the connection fares.
 *
 * Returns when the server says that there is nothing more (204) or `signal` is aborted. Throws a
 * `StreamError` that does not mend itself.
 */
export async function* connect<Item>(
  source: Source<Item>,
  world: World,
  signal: AbortSignal,
): AsyncGenerator<Item[] | Link, void, undefined> {
  const backOff = new BackOff(world)
  while (!signal.aborted) {
    await shown(world, signal)
    yield 'connecting'
    const line = new Line(world, signal)
    let atLeastMs = 0
    try {
      const body = await line.open(source)
      if (body === null) return
      yield 'open'
      for await (const items of line.read(body, source, backOff)) {
        backOff.reset()
        yield items
      }
    } catch (error) {
      const why = line.explain(error)
      if (!why.mendsItself) throw why
      atLeastMs = why.retryAfterMs
    } finally {
      line.close()
    }
    if (world.isHidden() || signal.aborted) continue
    yield 'lost'
    await pause(backOff.next(atLeastMs), world, signal)
  }
}

/** One connection. It aborts itself when it is silent, nobody looks, or the network is another one. */
class Line {
  readonly #controller = new AbortController()
  readonly #world: World
  readonly #releases: (() => void)[] = []
  #callOffWatch = (): void => {}

  constructor(world: World, signal: AbortSignal) {
    this.#world = world
    const give = (): void => this.#cut('cut', 'the reader left')
    signal.addEventListener('abort', give)
    this.#releases.push(() => signal.removeEventListener('abort', give))
    // A connection of the network before may hang for minutes before it errs.
    this.#releases.push(
      world.onWake((wake) => wake !== 'shown' && this.#cut('cut', `the browser is ${wake}`)),
    )
    if (signal.aborted) give()
  }

  /** The body of an event stream, or null where the server has nothing more. */
  async open<Item>(source: Source<Item>): Promise<ReadableStream<Uint8Array> | null> {
    this.#watch()
    const { url, headers } = source.request()
    const response = await this.#world.fetch(url, {
      headers: { Accept: 'text/event-stream', ...headers },
      cache: 'no-store',
      credentials: 'same-origin',
      signal: this.#controller.signal,
    })
    return bodyOf(response)
  }

  async *read<Item>(
    body: ReadableStream<Uint8Array>,
    source: Source<Item>,
    backOff: BackOff,
  ): AsyncGenerator<Item[], void, undefined> {
    const decoder = new TextDecoder()
    const reader = body.getReader()
    let items: Item[] = []
    const parser = createParser({
      onRetry: (ms) => (backOff.retryMs = ms),
      onEvent: ({ id, event, data }) => {
        const item = source.take({ id, event: event ?? 'message', data })
        if (item !== undefined) items.push(item)
      },
    })
    for (;;) {
      const { done, value } = await reader.read()
      if (done) return
      this.#watch()
      try {
        parser.feed(decoder.decode(value, { stream: true }))
      } finally {
        // What precedes a bad frame in the same chunk has been taken: the cursor is behind it.
        if (items.length > 0) yield items
        items = []
      }
    }
  }

  /** Why this connection ended. Whatever fetch threw, an abort of ours is the better reason. */
  explain(error: unknown): StreamError {
    const { signal } = this.#controller
    if (signal.aborted && signal.reason instanceof StreamError) return signal.reason
    return error instanceof StreamError ? error : new StreamError('cut', String(error))
  }

  close(): void {
    this.#callOffWatch()
    for (const release of this.#releases) release()
    this.#cut('cut', 'closed')
  }

  #watch(): void {
    this.#callOffWatch()
    this.#callOffWatch = this.#world.later(
      () => this.#cut('silent', `nothing for ${SILENCE_MS} ms`),
      SILENCE_MS,
    )
  }

  #cut(type: 'cut' | 'silent', message: string): void {
    this.#controller.abort(new StreamError(type, message))
  }
}

async function bodyOf(response: Response): Promise<ReadableStream<Uint8Array> | null> {
  if (response.status === 204) return null
  if (response.status !== 200) throw await refusal(response)
  const isStream = response.headers.get('Content-Type')?.startsWith('text/event-stream') ?? false
  if (isStream && response.body) return response.body
  // A proxy's own page, a captive portal: not our server, so it says nothing about the run.
  throw new StreamError('cut', `'${response.url}' is not an event stream`)
}

async function refusal(response: Response): Promise<StreamError> {
  const { status } = response
  await response.body?.cancel()
  const message = `status ${status}`
  if (status === 429 || status >= 500) {
    return new StreamError(
      'busy',
      message,
      1_000 * Number(response.headers.get('Retry-After') ?? 0) || 0,
    )
  }
  if (status === 401) return new StreamError('forbidden', message)
  if (status === 404) return new StreamError('missing', message)
  if (status === 409) return new StreamError('reset', message)
  if (status === 410) return new StreamError('expired', message)
  return new StreamError('refused', message)
}
