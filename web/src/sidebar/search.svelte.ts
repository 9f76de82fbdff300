/** The search over titles and text: what is asked for, and what has been found of it so far. */
import { ApiError, patiently, type Api } from '../api.ts'
import type { Chat, ChatNews, Match } from '../stream/wire.ts'
import type { World } from '../stream/world.ts'

/** The server takes no more. */
export const QUERY_CHARS = 128
/** Nobody reads what the first letters of a word have found. */
const PAUSE_MS = 150
const PAGE = 30

export class Search {
  query = $state.raw('')
  /** Null where nothing is searched for, or nothing has come back yet. */
  found = $state.raw<readonly Chat[] | null>(null)
  isLoading = $state.raw(false)
  problem = $state.raw<ApiError | null>(null)
  #next = $state.raw<string | null>(null)
  #asking = new AbortController()
  readonly #api: Api
  readonly #world: World

  constructor(api: Api, world: World) {
    this.#api = api
    this.#world = world
  }

  get hasMore(): boolean {
    return this.#next !== null
  }

  ask(query: string): void {
    this.query = query
    this.problem = null
    this.#asking.abort()
    this.#asking = new AbortController()
    this.isLoading = query.trim() !== ''
    if (!this.isLoading) {
      this.found = null
      return
    }
    const { signal } = this.#asking
    const callOff = this.#world.later(() => void this.#read([], null, signal), PAUSE_MS)
    signal.addEventListener('abort', callOff)
  }

  async more(): Promise<void> {
    if (this.isLoading || this.#next === null) return
    this.isLoading = true
    await this.#read(this.found ?? [], this.#next, this.#asking.signal)
  }

  hear({ id, chat }: ChatNews): void {
    const renamed = (other: Chat): Chat => (chat ? { ...other, title: chat.title } : other)
    this.found =
      this.found
        ?.filter((other) => other.id !== id || chat !== null)
        .map((other) => (other.id === id ? renamed(other) : other)) ?? null
  }

  /** A page of the server may be empty and still have one behind it. */
  async #read(before: readonly Chat[], cursor: string | null, signal: AbortSignal): Promise<void> {
    const query = this.query.trim()
    try {
      let found = before
      let next = cursor
      do {
        const options = { query, limit: PAGE, before: next }
        const page = await patiently(() => this.#api.page(options), this.#world, signal)
        if (signal.aborted) return
        found = [...found, ...page.chats]
        next = page.next
      } while (next !== null && found.length < before.length + PAGE)
      this.found = found
      this.#next = next
      this.isLoading = false
    } catch (error) {
      if (signal.aborted) return
      if (!(error instanceof ApiError)) throw error
      this.problem = error
      this.isLoading = false
    }
  }
}

export interface Piece {
  readonly text: string
  readonly isHit: boolean
}

/** A snippet in pieces, hits and what stands between them. */
export function piecesOf({ snippet, hits }: Match): readonly Piece[] {
  const pieces: Piece[] = []
  let end = 0
  for (const [from, to] of hits) {
    pieces.push({ text: snippet.slice(end, from), isHit: false })
    pieces.push({ text: snippet.slice(from, to), isHit: true })
    end = to
  }
  pieces.push({ text: snippet.slice(end), isHit: false })
  return pieces.filter(({ text }) => text !== '')
}
