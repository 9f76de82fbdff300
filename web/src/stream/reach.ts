/** Whether the server can be reached is the same for all that is asked of it: what finds out tells the others. */
import type { Wake, World } from './world.ts'

/** What a proxy answers for a server that is away. */
const FROM_A_PROXY: ReadonlySet<number> = new Set([502, 504])

/** The same world, where the first reply after a request without one is a wake: `reached`. */
export function sharingReach(world: World): World {
  const listeners = new Set<(wake: Wake) => void>()
  let isAway = false
  const note = (isReached: boolean): void => {
    const isBack = isAway && isReached
    isAway = !isReached
    if (isBack) for (const listener of [...listeners]) listener('reached')
  }
  return {
    ...world,
    fetch: async (url, init) => {
      try {
        const response = await world.fetch(url, init)
        note(!FROM_A_PROXY.has(response.status))
        return response
      } catch (error) {
        if (!init.signal?.aborted) note(false)
        throw error
      }
    },
    onWake: (listener) => {
      listeners.add(listener)
      const stopListening = world.onWake(listener)
      return () => {
        listeners.delete(listener)
        stopListening()
      }
    },
  }
}
