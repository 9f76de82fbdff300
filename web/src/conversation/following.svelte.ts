/** The run that is being followed, if there is one: the answer so far, and how the way to it fares. */
import { ApiError, patiently, type Api } from '../api.ts'
import { pause } from '../stream/backoff.ts'
import { StreamError } from '../stream/errors.ts'
import { blank, fold, type Answer } from '../stream/fold.ts'
import { follow } from '../stream/follow.ts'
import type { Network } from '../stream/network.ts'
import type { Link } from '../stream/sse.ts'
import { isTerminal, placeOf, type Message } from '../stream/wire.ts'
import type { World } from '../stream/world.ts'

/** A run that is being followed. */
export interface Live {
  readonly run: string
  readonly message: string
  readonly answer: Answer
  readonly link: Link
  readonly isStopping: boolean
  /** What came last was said before, while this page did not listen. */
  readonly isReplay: boolean
}

/** `left`: nobody wants it any more. An error that waiting does not mend, or none: it is not all there. */
export type Outcome = 'ended' | 'left' | { readonly broken: StreamError | null }

const UNREAD_PAUSE_MS = 1_000

export class Following {
  live = $state.raw<Live | null>(null)

  readonly #api: Api
  readonly #world: World
  readonly #network: Network
  #left = new AbortController()

  constructor(api: Api, world: World, network: Network) {
    this.#api = api
    this.#world = world
    this.#network = network
  }

  /** Follow the run that writes a message, from where its parts tell it already. `live` stays until `leave`. */
  async read(message: Message, run: string): Promise<Outcome> {
    this.leave()
    const { signal } = this.#left
    const after = message.last_id === null ? null : placeOf(message.last_id)
    const isNew = { link: 'connecting', isStopping: false, isReplay: false } as const
    this.live = { run, message: message.id, answer: blank(message.parts, after), ...isNew }
    const broken = await this.#toEnd(after, run, signal)
    if (signal.aborted) return 'left'
    if (isTerminal(this.live.answer.state)) return 'ended'
    // Only a server that contradicts itself brings us here twice: not faster than this.
    await pause(UNREAD_PAUSE_MS, this.#world, signal)
    return signal.aborted ? 'left' : { broken }
  }

  /** The run goes on without us. */
  leave(): void {
    this.#left.abort()
    this.#left = new AbortController()
    this.live = null
  }

  async stop(): Promise<void> {
    const { live } = this
    if (live === null) return
    const { signal } = this.#left
    this.live = { ...live, isStopping: true }
    try {
      await patiently(() => this.#api.stop(live.run), this.#world, signal)
    } catch (error) {
      if (signal.aborted) return
      if (!(error instanceof ApiError)) throw error
      // What the run does now, the stream tells; a stop that was refused is offered again.
      if (this.live?.run === live.run) this.live = { ...this.live, isStopping: false }
    }
  }

  /** Returns why the run cannot be read to its end, if it cannot. */
  async #toEnd(
    after: ReturnType<typeof placeOf> | null,
    run: string,
    signal: AbortSignal,
  ): Promise<StreamError | null> {
    const way = { world: this.#world, network: this.#network, signal }
    try {
      for await (const got of follow({ url: this.#api.eventsUrl(run), after, ...way })) {
        if (signal.aborted || this.live === null) return null
        if (got.type === 'link') this.live = { ...this.live, link: got.link }
        else {
          const answer = fold(this.live.answer, got.items)
          this.live = { ...this.live, answer, isReplay: got.isReplay }
        }
      }
      return null
    } catch (error) {
      if (!(error instanceof StreamError)) throw error
      return error
    }
  }
}
