/** One connection to an event stream. It ends itself when it is dead, nobody looks, or the network changed. */
import { createParser } from 'eventsource-parser'
import { pause, type BackOff } from './backoff.ts'
import { StreamError } from './errors.ts'
import type { Network } from './network.ts'
import type { Frame } from './wire.ts'
import type { Wake, World } from './world.ts'

/** Two and a half heartbeats: one may be late, two in a row are not. */
const SILENCE_MS = 25_000
/** The server's first bytes do not wait for the engine; so late, somebody may be holding them back. */
const OPENING_MS = 2_000
/** What comes within two frames is read at once: reading costs a page more than what is read. */
export const READ_EVERY_MS = 30

export interface Source<Item> {
  /** Asked before every attempt, so that the cursor in it is fresh. */
  readonly request: () => { readonly url: string; readonly headers?: Record<string, string> }
  /** The meaning of a frame, or undefined to skip it. A `StreamError` ends this connection. */
  readonly take: (frame: Frame) => Item | undefined
}

export class Line<Item> {
  readonly #controller = new AbortController()
  readonly #source: Source<Item>
  readonly #network: Network
  readonly #world: World
  readonly #releases: (() => void)[] = []
  #callOffWatch = (): void => {}
  #hasOpened = false

  constructor(source: Source<Item>, network: Network, world: World, signal: AbortSignal) {
    this.#source = source
    this.#network = network
    this.#world = world
    const give = (): void => this.#cut('cut', 'the reader left')
    signal.addEventListener('abort', give)
    this.#releases.push(() => signal.removeEventListener('abort', give))
    // A connection of the network before, or of before the page was frozen, may hang for minutes before it errs.
    const leave = (wake: Wake): void => {
      if (wake !== 'shown' && wake !== 'reached') this.#cut('cut', `the page is ${wake}`)
    }
    this.#releases.push(world.onWake(leave))
    if (signal.aborted) give()
  }

  /** What the server has now, in one short reply, or null where there is nothing more to come. */
  async openShort(): Promise<ReadableStream<Uint8Array> | null> {
    this.#watch()
    return bodyOf(await this.#fetch('wait=0'))
  }

  /** The body of the stream, or null where there is nothing more. Throws `held` where somebody keeps it back. */
  async open(): Promise<ReadableStream<Uint8Array> | null> {
    this.#watch()
    const suspect = (): void => void this.#findHolder()
    this.#releases.push(this.#world.later(suspect, OPENING_MS))
    return bodyOf(await this.#fetch())
  }

  async *read(
    body: ReadableStream<Uint8Array>,
    backOff: BackOff,
  ): AsyncGenerator<Item[], void, undefined> {
    const decoder = new TextDecoder()
    const reader = body.getReader()
    let items: Item[] = []
    const parser = createParser({
      onRetry: (ms) => (backOff.retryMs = ms),
      onEvent: ({ id, event, data }) => {
        const item = this.#source.take({ id, event: event ?? 'message', data })
        if (item !== undefined) items.push(item)
      },
    })
    for (let readAt = -Infinity; ; readAt = this.#world.now()) {
      await this.#until(readAt + READ_EVERY_MS)
      const { done, value } = await reader.read()
      if (done) return
      this.#hasOpened = true
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

  /** Wait until `time`, or until this connection is given up. */
  async #until(time: number): Promise<void> {
    const ms = time - this.#world.now()
    const { signal } = this.#controller
    if (ms > 0 && !signal.aborted) await pause(ms, this.#world, signal)
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

  #fetch(query = ''): Promise<Response> {
    const { url, headers } = this.#source.request()
    const joint = url.includes('?') ? '&' : '?'
    return this.#world.fetch(query === '' ? url : url + joint + query, {
      headers: { Accept: 'text/event-stream', ...headers },
      cache: 'no-store',
      credentials: 'same-origin',
      signal: this.#controller.signal,
    })
  }

  /** While this stream says nothing, see whether a short reply comes through: then somebody holds it back. */
  async #findHolder(): Promise<void> {
    if (this.#hasOpened) return
    try {
      const response = await this.#fetch('wait=0')
      await response.arrayBuffer()
      if (!response.ok || this.#hasOpened) return
      this.#network.noteHeld(this.#world.now())
      this.#cut('held', 'short replies arrive, streams do not')
    } catch {
      // It proves nothing: the stream may still open, and the watch ends it if it does not.
    }
  }

  #watch(): void {
    this.#callOffWatch()
    this.#callOffWatch = this.#world.later(
      () => this.#cut('silent', `nothing for ${SILENCE_MS} ms`),
      SILENCE_MS,
    )
  }

  #cut(type: 'cut' | 'silent' | 'held', message: string): void {
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
  // 408 and 425 come from proxies, and mean the same.
  if (status === 408 || status === 425 || status === 429 || status >= 500) {
    return new StreamError('busy', message, retryAfterMs(response.headers.get('Retry-After')))
  }
  if (status === 401) return new StreamError('forbidden', message)
  if (status === 404) return new StreamError('missing', message)
  if (status === 409) return new StreamError('reset', message)
  if (status === 410) return new StreamError('expired', message)
  return new StreamError('refused', message)
}

/** Our server says seconds; a proxy may say a date. */
function retryAfterMs(header: string | null): number {
  if (header === null) return 0
  const seconds = Number(header)
  const ms = Number.isNaN(seconds) ? Date.parse(header) - Date.now() : 1_000 * seconds
  return Math.max(0, ms) || 0
}
