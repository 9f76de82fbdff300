/**
 * What the stream modules need from outside: the network, a clock, chance, and whether anybody looks.
 * The tests put a virtual one in its place.
 */
export type Wake = 'shown' | 'hidden' | 'online' | 'restored' | 'reached'

export interface World {
  readonly fetch: (url: string, init: RequestInit) => Promise<Response>
  /** Milliseconds that only ever grow. */
  readonly now: () => number
  /** Run something later; the function returned calls it off. */
  readonly later: (run: () => void, ms: number) => () => void
  /** A number from 0 up to, not including, 1. */
  readonly random: () => number
  readonly isHidden: () => boolean
  /** Listen until the function returned is called. */
  readonly onWake: (listener: (wake: Wake) => void) => () => void
}

export function browserWorld(): World {
  return {
    fetch: (url, init) => fetch(url, init),
    now: () => performance.now(),
    later: (run, ms) => {
      const timer = setTimeout(run, ms)
      return () => clearTimeout(timer)
    },
    random: () => Math.random(),
    isHidden: () => document.hidden,
    onWake: listenToBrowser,
  }
}

/** `restored`: out of the browser's cache of pages, or out of a frozen tab. No connection outlives that. */
function listenToBrowser(listener: (wake: Wake) => void): () => void {
  const seen = new AbortController()
  const options = { signal: seen.signal }
  const look = (): void => listener(document.hidden ? 'hidden' : 'shown')
  const restore = ({ persisted }: PageTransitionEvent): void => {
    if (persisted) listener('restored')
  }
  document.addEventListener('visibilitychange', look, options)
  document.addEventListener('resume', () => listener('restored'), options)
  window.addEventListener('pageshow', restore, options)
  window.addEventListener('online', () => listener('online'), options)
  return () => seen.abort()
}
