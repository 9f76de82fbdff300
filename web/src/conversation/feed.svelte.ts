/** What the server tells of itself and of all that runs on it, for as long as the page lives. */
import type { Api } from '../api.ts'
import { followLive } from '../stream/follow.ts'
import type { Network } from '../stream/network.ts'
import type { Link } from '../stream/sse.ts'
import type { EngineStatus, LiveNews, Model } from '../stream/wire.ts'
import type { World } from '../stream/world.ts'

export class Feed {
  engine = $state.raw<(EngineStatus & Partial<Model>) | null>(null)
  build = $state.raw<string | null>(null)
  link = $state.raw<Link>('connecting')

  readonly #api: Api
  readonly #world: World
  readonly #network: Network
  #left = new AbortController()

  constructor(api: Api, world: World, network: Network) {
    this.#api = api
    this.#world = world
    this.#network = network
  }

  /** Give all news to `hear`, as they arrive together. Throws a `StreamError` that does not mend itself. */
  async watch(hear: (news: readonly LiveNews[]) => void): Promise<void> {
    this.#left.abort()
    this.#left = new AbortController()
    const way = { world: this.#world, network: this.#network, signal: this.#left.signal }
    for await (const got of followLive({ url: this.#api.liveUrl, ...way })) {
      if (typeof got === 'string') this.link = got
      else {
        for (const news of got) this.#take(news)
        hear(got)
      }
    }
  }

  #take(news: LiveNews): void {
    if (news.type === 'engine') this.engine = news.status
    if (news.type !== 'snapshot') return
    this.engine = news.engine
    this.build = news.build ?? null
  }
}
