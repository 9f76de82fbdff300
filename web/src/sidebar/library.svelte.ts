/**
 * The conversations beside the one that is shown: their list, as far down as the reader has gone, and what is
 * done to them. The server has the truth and tells every page what becomes of it; a page that was away reads
 * its list again.
 */
import { ApiError, patiently, type Api, type ChatPage } from '../api.ts'
import type { Chat, ChatNews, LiveNews } from '../stream/wire.ts'
import type { World } from '../stream/world.ts'
import { Attention } from './attention.svelte.ts'
import { Imports } from './imports.svelte.ts'
import { continued, heard } from './list.ts'
import { Search } from './search.svelte.ts'

const PAGE = 100
/** The server gives no more at once. */
const LONGEST_PAGE = 200

export interface Deleted {
  readonly chat: Chat
  readonly wasShown: boolean
}

export class Library {
  readonly search: Search
  readonly attention = new Attention()
  readonly imports: Imports
  /** Newest first, without gaps. */
  chats = $state.raw<readonly Chat[]>([])
  isLoading = $state.raw(true)
  /** What could not be done, in the reader's words for it. */
  problem = $state.raw<ApiError | null>(null)
  /** What can be taken back. */
  deleted = $state.raw<Deleted | null>(null)
  /** The cursor of the page behind the list; null at its end. */
  #next = $state.raw<string | null>(null)
  #reading = new AbortController()
  /** What has been heard while a page was on its way, which may be older than that. */
  #missed: ChatNews[] = []
  readonly #api: Api
  readonly #world: World

  constructor(api: Api, world: World) {
    this.#api = api
    this.#world = world
    this.search = new Search(api, world)
    this.imports = new Imports(api)
  }

  get hasMore(): boolean {
    return this.#next !== null
  }

  /** What the page is told on its one connection, all that has arrived at once. */
  hear(news: readonly LiveNews[]): void {
    let { chats } = this
    for (const item of news) {
      this.attention.hear(item)
      if (item.type === 'snapshot') void this.#refresh()
      if (item.type !== 'chat') continue
      this.#missed.push(item)
      this.search.hear(item)
      chats = heard(chats, item, this.hasMore)
    }
    this.chats = chats
  }

  exportUrl(chat: Chat | null, format?: 'markdown' | 'json'): string {
    return this.#api.exportUrl(chat?.id ?? null, format)
  }

  titleOf(chat: string): string | null {
    return this.chats.find(({ id }) => id === chat)?.title ?? null
  }

  /** Read the page behind what is there, unless one is being read. */
  async more(): Promise<void> {
    if (this.isLoading || this.#next === null) return
    const before = this.#next
    await this.#read(async (signal) => {
      const page = await this.#page(PAGE, before, signal)
      return { ...page, chats: continued(this.chats, page.chats) }
    })
  }

  /** Read again as much as there is: what happened while the page was away is known to the server alone. */
  async #refresh(): Promise<void> {
    const wanted = Math.max(PAGE, this.chats.length)
    await this.#read(async (signal) => {
      let all: ChatPage = { chats: [], next: null }
      do {
        const room = Math.min(LONGEST_PAGE, wanted - all.chats.length)
        const page = await this.#page(room, all.next, signal)
        all = { next: page.next, chats: continued(all.chats, page.chats) }
      } while (all.next !== null && all.chats.length < wanted)
      return all
    })
  }

  #page(limit: number, before: string | null, signal: AbortSignal): Promise<ChatPage> {
    return patiently(() => this.#api.page({ limit, before }), this.#world, signal)
  }

  async #read(read: (signal: AbortSignal) => Promise<ChatPage>): Promise<void> {
    this.#reading.abort()
    this.#reading = new AbortController()
    const { signal } = this.#reading
    this.#missed = []
    this.isLoading = true
    try {
      const { chats, next } = await read(signal)
      if (signal.aborted) return
      this.#next = next
      this.chats = this.#missed.reduce((list, news) => heard(list, news, next !== null), chats)
      this.isLoading = false
    } catch (error) {
      if (signal.aborted) return
      this.isLoading = false
      this.#refuse(error)
    }
  }

  /** Without a word in the title it stays as it is. */
  async rename(chat: Chat, title: string): Promise<void> {
    const wanted = title.trim()
    if (wanted === '' || wanted === chat.title) return
    this.#hearAlone(chat.id, { ...chat, title: wanted })
    await this.#tell(chat, () => this.#api.rename(chat.id, wanted))
  }

  async delete(chat: Chat, wasShown: boolean): Promise<void> {
    this.deleted = { chat, wasShown }
    this.#hearAlone(chat.id, null)
    await this.#tell(chat, () => this.#api.deleteChat(chat.id))
  }

  /** Returns what has been brought back. */
  async undo(): Promise<Deleted | null> {
    const { deleted } = this
    if (deleted === null) return null
    this.deleted = null
    const { chat } = deleted
    const restored = await this.#tell(chat, () => this.#api.restore(chat.id))
    return restored ? deleted : null
  }

  keepDeleted(): void {
    this.deleted = null
  }

  forgetProblem(): void {
    this.problem = null
  }

  /** What is asked of the server, until it is there; where it refuses, all is as it was. */
  async #tell(before: Chat, ask: () => Promise<unknown>): Promise<boolean> {
    this.problem = null
    try {
      const now = await patiently(ask, this.#world, new AbortController().signal)
      if (now) this.#hearAlone(before.id, now as Chat)
      return true
    } catch (error) {
      this.#refuse(error)
      void this.#refresh()
      return false
    }
  }

  #hearAlone(id: string, chat: Chat | null): void {
    this.hear([{ type: 'chat', id, chat }])
  }

  /** A missing key is asked for where the conversation stands. */
  #refuse(error: unknown): void {
    if (!(error instanceof ApiError)) throw error
    if (error.type !== 'forbidden') this.problem = error
  }
}
