/**
 * Server-sent events over fetch that survive whatever the connection does.
 *
 * Unlike EventSource it gives up only where asking again is pointless, notices a connection that is open but
 * dead, lets go of the server while nobody looks, gets through proxies that hold streams back, and lets its
 * caller refuse what it is sent. It knows nothing of runs: a `Source` says what to ask for and what a frame means.
 */
import { BackOff, pause, shown } from './backoff.ts'
import { Line, type Source } from './line.ts'
import { Network } from './network.ts'
import type { World } from './world.ts'

export type Link = 'connecting' | 'open' | 'lost'

export interface Road {
  readonly world: World
  readonly signal: AbortSignal
  /** What all streams of the page know of their way; by default this one finds out for itself. */
  readonly network?: Network
  /** How far apart short requests are, in milliseconds, where streams are held back. */
  readonly pollMs: number
}

/** How one connection ended: for good, with all there is for now, because it is held back, or by a fault. */
type Ending = 'over' | 'all' | 'held' | { readonly retryAfterMs: number }

/**
 * What the source makes of the frames, in lists as they arrive, and how the connection fares.
 *
 * Returns when the server says that there is nothing more (204) or `signal` is aborted. Throws a
 * `StreamError` that does not mend itself.
 */
export async function* connect<Item>(
  source: Source<Item>,
  { world, signal, network = new Network(), pollMs }: Road,
): AsyncGenerator<Item[] | Link, void, undefined> {
  const stopListening = world.onWake((wake) => wake === 'online' && network.forget())
  try {
    yield* reconnect(source, { world, signal, network, pollMs })
  } finally {
    stopListening()
  }
}

async function* reconnect<Item>(
  source: Source<Item>,
  { world, signal, network, pollMs }: Required<Road>,
): AsyncGenerator<Item[] | Link, void, undefined> {
  const backOff = new BackOff(world)
  let ending: Ending = 'held'
  while (!signal.aborted) {
    await shown(world, signal)
    // Between short replies nothing is lost, so there is nothing to say.
    if (ending !== 'all') yield 'connecting'
    const isShort = network.holdsStreams(world.now())
    ending = yield* attempt(new Line(source, network, world, signal), isShort, backOff)
    if (ending === 'over') return
    if (ending === 'all') await pause(pollMs, world, signal)
    if (typeof ending === 'string' || world.isHidden() || signal.aborted) continue
    yield 'lost'
    await pause(backOff.next(ending.retryAfterMs), world, signal)
  }
}

async function* attempt<Item>(
  line: Line<Item>,
  isShort: boolean,
  backOff: BackOff,
): AsyncGenerator<Item[] | Link, Ending, undefined> {
  try {
    const body = await (isShort ? line.openShort() : line.open())
    if (body === null) return 'over'
    yield 'open'
    for await (const items of line.read(body, backOff)) {
      backOff.reset()
      yield items
    }
    return isShort ? 'all' : { retryAfterMs: 0 }
  } catch (error) {
    const why = line.explain(error)
    if (!why.mendsItself) throw why
    return why.type === 'held' ? 'held' : { retryAfterMs: why.retryAfterMs }
  } finally {
    line.close()
  }
}
