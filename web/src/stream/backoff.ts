/** How long to stay away after a failure, and how to wait so that good news ends it. */
import type { World } from './world.ts'

const LONGEST_MS = 15_000

/**
 * Doubling pauses from an eighth of the server's `retry`, half of each left to chance, so that the readers
 * of a restarted server do not come back all at once.
 */
export class BackOff {
  retryMs = 2_000
  #failures = 0
  readonly #world: World

  constructor(world: World) {
    this.#world = world
  }

  reset(): void {
    this.#failures = 0
  }

  /** The next pause in milliseconds, at least as long as the server asked for. */
  next(atLeastMs = 0): number {
    const pause = Math.min(LONGEST_MS, (this.retryMs / 8) * 2 ** this.#failures)
    this.#failures += 1
    return Math.max(atLeastMs, pause * (0.5 + this.#world.random() / 2))
  }
}

/** Wait, but not while the network comes back, the tab is shown again or the caller has given up. */
export function pause(ms: number, world: World, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const end = (): void => {
      callOff()
      stopListening()
      signal.removeEventListener('abort', end)
      resolve()
    }
    const callOff = world.later(end, ms)
    const stopListening = world.onWake((wake) => wake !== 'hidden' && end())
    if (signal.aborted) end()
    signal.addEventListener('abort', end)
  })
}

/** Wait until somebody can see the page, or the caller has given up. */
export function shown(world: World, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const end = (): void => {
      stopListening()
      signal.removeEventListener('abort', end)
      resolve()
    }
    const stopListening = world.onWake(() => !world.isHidden() && end())
    signal.addEventListener('abort', end)
    if (!world.isHidden() || signal.aborted) end()
  })
}
