/**
 * The tabs of this browser, each with a name under which it keeps what is its own. What a tab has left that is
 * gone, another one takes over.
 *
 * Who is there, the tabs ask each other: the locks that would tell are missing over plain HTTP. A frozen tab does
 * not answer; when it wakes, it finds that what it kept is another's.
 */
import { newKey } from '../api.ts'
import { keptInTab } from '../storage.ts'
import type { World } from '../stream/world.ts'

const NAME = 'tab'
const ANSWER_MS = 500
/** So long, a tab that has left may be one that is loaded anew. */
const RELOAD_MS = 3_000

/** Who asks which tabs are there; who is; who leaves. */
export type Said = { readonly asks: string } | { readonly here: string } | { readonly left: string }

/** What one tab says all others hear. */
export interface Air {
  readonly say: (said: Said) => void
  readonly hear: (listener: (said: Said) => void) => void
}

export class Tabs {
  /** A tab has left, and is not back. */
  onLeft: () => void = () => {}
  #name: string
  readonly #world: World
  readonly #air: Air
  /** Who has answered, for each that waits for answers. */
  readonly #heard = new Set<Set<string>>()

  constructor(world: World, air: Air) {
    this.#world = world
    this.#air = air
    this.#name = keptInTab.get(NAME) ?? ''
    if (this.#name === '') this.#rename()
    air.hear((said) => this.#hear(said))
  }

  get name(): string {
    return this.#name
  }

  /** To be called when the tab goes away, for ever or to be loaded anew. */
  leave(): void {
    this.#air.say({ left: this.#name })
  }

  /** Who of these tabs does not answer. */
  async missing(names: readonly string[]): Promise<readonly string[]> {
    const heard = new Set<string>()
    this.#heard.add(heard)
    this.#air.say({ asks: this.#name })
    await new Promise<void>((resolve) => this.#world.later(resolve, ANSWER_MS))
    this.#heard.delete(heard)
    return names.filter((name) => name !== this.#name && !heard.has(name))
  }

  #hear(said: Said): void {
    if ('asks' in said) this.#air.say({ here: this.#name })
    else if ('left' in said) this.#world.later(() => this.onLeft(), RELOAD_MS)
    else {
      for (const heard of this.#heard) heard.add(said.here)
      // The browser has made a copy of a tab, name and all.
      if (said.here === this.#name) this.#rename()
    }
  }

  #rename(): void {
    this.#name = newKey()
    keptInTab.set(NAME, this.#name)
  }
}

export function browserTabs(world: World): Tabs {
  const channel = new BroadcastChannel('inkstream.tabs')
  const tabs = new Tabs(world, {
    say: (said) => channel.postMessage(said),
    hear: (listener) => channel.addEventListener('message', ({ data }) => listener(data as Said)),
  })
  window.addEventListener('pagehide', () => tabs.leave())
  return tabs
}
