/** Tabs of one browser, for tests. */
import type { World } from '../stream/world.ts'
import { Tabs, type Air, type Said } from './tabs.ts'

/** What one of them says all others hear, at once. */
export class Browser {
  readonly #listeners = new Map<Air, (said: Said) => void>()

  air(): Air {
    const air: Air = {
      say: (said) => {
        for (const [other, listener] of this.#listeners) if (other !== air) listener(said)
      },
      hear: (listener) => void this.#listeners.set(air, listener),
    }
    return air
  }

  /** It is closed, or frozen: it hears nothing any more. */
  silence(air: Air): void {
    this.#listeners.delete(air)
  }
}

export function onlyTab(world: World): Tabs {
  return new Tabs(world, new Browser().air())
}
