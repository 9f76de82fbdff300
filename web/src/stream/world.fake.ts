/** A world in which time passes only when nothing else can happen, and a server of recorded bytes. */
import type { Wake, World } from './world.ts'

type Respond = (lastEventId: string, init: RequestInit, url: string) => Response | Promise<Response>

interface Timer {
  readonly at: number
  readonly run: () => void
}

export class FakeWorld implements World {
  respond: Respond
  /** Answers what asks for a short reply; by default nobody does. */
  respondShort: Respond = (_id, init) => unanswered(init)
  hidden = false
  /** The `Last-Event-ID` of every request for a stream so far, with the time at which it was made. */
  readonly requests: { at: number; lastEventId: string }[] = []
  /** Just so, of those for a short reply. */
  readonly shortRequests: { at: number; lastEventId: string }[] = []
  readonly #timers = new Set<Timer>()
  readonly #listeners = new Set<(wake: Wake) => void>()
  #now = 0

  constructor(respond: Respond) {
    this.respond = respond
  }

  readonly fetch: World['fetch'] = async (url, init) => {
    const lastEventId = new Headers(init.headers).get('Last-Event-ID') ?? ''
    const isShort = url.endsWith('wait=0')
    const requests = isShort ? this.shortRequests : this.requests
    requests.push({ at: this.#now, lastEventId })
    return (isShort ? this.respondShort : this.respond)(lastEventId, init, url)
  }

  readonly now = (): number => this.#now
  readonly random = (): number => 0.5
  readonly isHidden = (): boolean => this.hidden

  readonly later: World['later'] = (run, ms) => {
    const timer = { at: this.#now + ms, run }
    this.#timers.add(timer)
    return () => this.#timers.delete(timer)
  }

  readonly onWake: World['onWake'] = (listener) => {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  get isIdle(): boolean {
    return this.#timers.size === 0 && this.#listeners.size === 0
  }

  wake(wake: Wake): void {
    if (wake === 'hidden' || wake === 'shown') this.hidden = wake === 'hidden'
    for (const listener of [...this.#listeners]) listener(wake)
  }

  /** Let everything happen that can happen without time passing. */
  async settle(): Promise<void> {
    for (let turn = 0; turn < 3; turn += 1) await new Promise((resolve) => setImmediate(resolve))
  }

  /** Let `ms` pass, one timer after the other. */
  async advance(ms: number): Promise<void> {
    const end = this.#now + ms
    await this.settle()
    for (let timer = this.#next(end); timer !== undefined; timer = this.#next(end)) {
      this.#fire(timer)
      await this.settle()
    }
    this.#now = end
  }

  /** Let as much time pass as `outcome` needs. Fails where it waits for nothing. */
  async until<T>(outcome: Promise<T>): Promise<T> {
    let isPending = true
    const done = (): void => void (isPending = false)
    outcome.then(done, done)
    await this.settle()
    while (isPending) {
      const timer = this.#next(Infinity)
      if (timer === undefined) throw new Error('waits for ever')
      this.#fire(timer)
      await this.settle()
    }
    return outcome
  }

  #next(end: number): Timer | undefined {
    return [...this.#timers].filter((timer) => timer.at <= end).sort((a, b) => a.at - b.at)[0]
  }

  #fire(timer: Timer): void {
    this.#timers.delete(timer)
    this.#now = Math.max(this.#now, timer.at)
    timer.run()
  }
}

/** A request to which nobody says anything. */
export function unanswered(init: RequestInit): Promise<Response> {
  return new Promise((_resolve, reject) => {
    init.signal?.addEventListener('abort', () => reject(new DOMException('', 'AbortError')))
  })
}

export type Ending = 'close' | 'break' | 'hang'

/** An event stream that sends these pieces and then closes, breaks, or stays open in silence. */
export function streamOf(pieces: Uint8Array[], ending: Ending, init: RequestInit): Response {
  const body = new ReadableStream<Uint8Array>({
    start(controller) {
      for (const piece of pieces) if (piece.length > 0) controller.enqueue(piece)
      if (ending === 'close') controller.close()
      init.signal?.addEventListener('abort', () => {
        if (ending !== 'close') controller.error(init.signal?.reason)
      })
    },
    pull(controller) {
      if (ending === 'break') controller.error(new TypeError('network error'))
    },
  })
  return new Response(body, { headers: { 'Content-Type': 'text/event-stream; charset=utf-8' } })
}

export function bytes(text: string): Uint8Array {
  return new TextEncoder().encode(text)
}

/** What the server sends of a transcript to a reader that has everything up to `lastEventId`. */
export function replay(transcript: Uint8Array, lastEventId: string): Uint8Array {
  if (lastEventId === '') return transcript
  // One character per byte, so that positions are byte positions.
  const text = Buffer.from(transcript).toString('latin1')
  const end = new RegExp(
    `(?:^|[\\r\\n])id: ?${lastEventId}(?![0-9])[^]*?(?:\\r\\n\\r\\n|\\r\\r|\\n\\n)`,
  )
  const match = end.exec(text)
  if (!match) throw new Error(`no event ${lastEventId}`)
  const rest = transcript.slice(match.index + match[0].length)
  return Buffer.concat([bytes('retry: 2000\n: ok\n\n'), rest])
}
