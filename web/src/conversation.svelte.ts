/**
 * The conversation on the page, and which branch of it is shown. Everything true is on the server; this only reads it
 * and follows what is being written (`Following`). What the reader does to it is in `Writing`.
 */
import { ApiError, patiently, type Api, type ChatContents, type Taken } from './api.ts'
import { Asking } from './conversation/asking.svelte.ts'
import { Branches } from './conversation/branches.svelte.ts'
import { Feed } from './conversation/feed.svelte.ts'
import { Following, type Live } from './conversation/following.svelte.ts'
import { behindPath, cutAt, type Line, type Outgoing } from './conversation/outgoing.ts'
import type { Tabs } from './conversation/tabs.ts'
import { questionOf } from './conversation/tree.ts'
import { Writing } from './conversation/writing.svelte.ts'
import { keepSettings, keptSettings, UNSET } from './panel/settings.ts'
import { StreamError } from './stream/errors.ts'
import { Network } from './stream/network.ts'
import type { Link } from './stream/sse.ts'
import {
  isTerminal,
  type Chat,
  type ChatNews,
  type EngineStatus,
  type LiveNews,
  type Message,
  type Model,
  type Run,
  type Settings,
} from './stream/wire.ts'
import type { World } from './stream/world.ts'

export class Conversation {
  chat = $state.raw<string | null>(null)
  title = $state.raw('')
  /** Why the chat cannot be shown. */
  loadProblem = $state.raw<ApiError | null>(null)
  isLoading = $state.raw(false)
  isLocked = $state.raw(false)
  /** What answers are asked for with. */
  settings = $state.raw<Settings>(UNSET)
  readonly asking: Asking
  readonly writing: Writing
  /** Hears all that the server tells, as it arrives: there is one connection for the whole page. */
  onNews: (news: readonly LiveNews[]) => void = () => {}

  readonly #api: Api
  readonly #world: World
  readonly #feed: Feed
  readonly #following: Following
  readonly #branches: Branches
  /** Ends whatever the conversation shown before was waiting for. */
  #shown = new AbortController()
  /** How often something has happened here that what was read before cannot tell. */
  #changes = 0
  /** Runs of this chat that started or ended while something was being sent: perhaps what was sent. */
  readonly #unheard = new Set<string>()

  constructor(api: Api, world: World, tabs: Tabs) {
    this.#api = api
    this.#world = world
    const network = new Network()
    this.#feed = new Feed(api, world, network)
    this.#following = new Following(api, world, network)
    this.#branches = new Branches(this.#following)
    this.asking = new Asking(api, world, tabs, {
      stateOf: (answer) => this.#branches.message(answer)?.state ?? null,
      settings: () => this.settings,
      onChat: (chat) => this.#becomes(chat),
      onTaken: (asked, taken) => this.#taken(asked, taken),
      onForbidden: () => (this.isLocked = true),
    })
    this.writing = new Writing(this, this.asking)
  }

  get draft(): string {
    return this.writing.draft
  }

  get engine(): (EngineStatus & Partial<Model>) | null {
    return this.#feed.engine
  }

  /** The build of the page that the server has; null before it has told, or where it has none. */
  get build(): string | null {
    return this.#feed.build
  }

  get serverLink(): Link {
    return this.#feed.link
  }

  get live(): Live | null {
    return this.#following.live
  }

  readonly #asked = $derived.by(() => this.asking.line.filter(({ chat }) => chat === this.chat))

  /** The branch that is shown. */
  readonly messages: readonly Message[] = $derived.by(() => cutAt(this.#branches.path, this.#asked))

  /** What is asked behind it and is not there yet, oldest first. */
  readonly waiting: Line = $derived(behindPath(this.messages, this.#asked))

  /** Whether something of this chat is on its way: until it is there, nothing else can be asked beside it. */
  readonly isSending: boolean = $derived(this.#asked.some(({ after }) => after === null))

  get isBusy(): boolean {
    return this.live !== null || this.waiting.length > 0 || this.isUnknown
  }

  /** Before its messages are known, a question to a chat would have no place in it. */
  get isUnknown(): boolean {
    return this.isLoading && this.#branches.isEmpty
  }

  /** Show a chat, on a branch with the message `through` where one is given, or an empty page for a new one. */
  async open(chat: string | null, through: string | null = null): Promise<void> {
    this.#shown.abort()
    this.#shown = new AbortController()
    this.#following.leave()
    this.chat = chat
    this.title = ''
    this.#branches.clear(through)
    this.loadProblem = null
    this.isLoading = false
    this.settings = chat === null ? keptSettings() : UNSET
    this.writing.open(chat)
    const { signal } = this.#shown
    if (chat !== null) await this.#load(chat)
    if (!signal.aborted) await this.asking.advance()
  }

  /** What answers are asked for with from now on. Throws an `ApiError`. */
  async keepSettings(settings: Settings): Promise<void> {
    const { chat } = this
    if (chat === null) keepSettings(settings)
    const kept =
      chat === null ? settings : (await this.#api.changeSettings(chat, settings)).settings
    if (this.chat === chat) this.settings = kept
    void this.asking.againAfter('settings', chat)
  }

  stop(): Promise<void> {
    return this.#following.stop()
  }

  message(id: string): Message | null {
    return this.#branches.message(id)
  }

  siblingsOf(message: Message): readonly Message[] {
    return this.#branches.siblingsOf(message)
  }

  /** Show the branch through this message. */
  show(message: Message): void {
    this.#branches.settle()
    this.#branches.show(message)
    this.#followEnd()
  }

  /** Somebody has signed in. What was shown is to be opened again. */
  unlock(): void {
    this.isLocked = false
    void this.watch()
  }

  /** Hear of what starts and ends elsewhere, and how the engine fares, for as long as the page lives. */
  async watch(): Promise<void> {
    try {
      await this.#feed.watch((news) => {
        this.onNews(news)
        for (const item of news) this.#hear(item)
      })
    } catch (error) {
      this.#refuse(error)
    }
  }

  #hear(news: LiveNews): void {
    if (news.type === 'snapshot') void this.#reconcile()
    if (news.type === 'run') this.#hearRun(news.run)
    if (news.type === 'chat' && news.id === this.chat) this.#hearOfChat(news)
  }

  #hearRun(run: Run): void {
    if (run.id === this.live?.run) return
    if (run.chat !== this.chat) void this.asking.advance()
    else if (this.isSending) this.#unheard.add(run.id)
    else if (this.isLoading) this.#changes += 1
    else void this.#reconcile()
  }

  #hearOfChat({ chat }: ChatNews): void {
    if (chat === null) this.#leaveDeleted()
    else if (this.loadProblem !== null) void this.open(chat.id)
    else {
      this.title = chat.title
      this.settings = chat.settings
    }
  }

  #leaveDeleted(): void {
    this.#shown.abort()
    this.#shown = new AbortController()
    this.#following.leave()
    this.isLoading = false
    this.loadProblem = new ApiError('refused', 'chat_deleted', 'the chat is deleted')
  }

  /** Read the chat again where something may have happened to it without us. */
  async #reconcile(): Promise<void> {
    const { signal } = this.#shown
    if (this.chat !== null && !this.isLoading) await this.#load(this.chat)
    if (!signal.aborted) await this.asking.advance()
  }

  /** Read the chat and follow its last answer while it lives, unless that is the run `unreadable`. */
  async #load(chat: string, unreadable: string | null = null): Promise<void> {
    const { signal } = this.#shown
    this.isLoading = true
    try {
      const { chat: now, messages } = await this.#readChat(chat, signal)
      if (signal.aborted) return
      this.loadProblem = null
      this.title = now.title
      this.settings = now.settings
      this.#branches.read(chat, messages)
    } catch (error) {
      if (!signal.aborted) this.loadProblem = this.#refuse(error)
      return
    } finally {
      if (!signal.aborted) this.isLoading = false
    }
    this.#followEnd(unreadable)
  }

  /** What has happened while it was read is newer: then it is read again. */
  async #readChat(chat: string, signal: AbortSignal): Promise<ChatContents> {
    for (;;) {
      const changes = this.#changes
      const contents = await patiently(() => this.#api.chat(chat), this.#world, signal)
      if (changes === this.#changes || signal.aborted) return contents
    }
  }

  /** The server has made a chat for what was asked on an empty page. */
  #becomes(chat: Chat): void {
    if (this.chat !== null) return
    this.chat = chat.id
    keepSettings(UNSET)
    this.writing.moveToChat(chat.id)
  }

  /** The server has an ask: show what it made of it and read the answer. */
  #taken(asked: Outgoing, { message: answer, run, chat }: Taken): void {
    if (answer.chat !== this.chat) return
    const { ask } = asked
    this.#changes += 1
    this.title = chat.title
    this.#branches.settle()
    const { path } = this.#branches
    const isShown = cutAt(path, [{ ...asked, after: null }]) !== path
    const question = 'content' in ask ? [questionOf(ask.content, ask.parent, answer)] : []
    this.#branches.add([...question, answer], isShown)
    this.#unheard.delete(run.id)
    // It was asked for before, by a tab that reloaded, and has ended since.
    if (this.#unheard.size > 0 || isTerminal(answer.state)) void this.#reconcile()
    this.#unheard.clear()
    this.#followEnd()
  }

  /** Follow what writes the last message that is shown, and nothing else. */
  #followEnd(unreadable: string | null = null): void {
    const { message, run } = this.#branches.end
    if (run !== null && run === this.live?.run) return
    this.#branches.settle()
    if (message && run !== null && run !== unreadable) void this.#read(message, run)
  }

  async #read(message: Message, run: string): Promise<void> {
    const outcome = await this.#following.read(message, run)
    if (outcome === 'left' || this.live?.run !== run) return
    this.#branches.settle()
    if (outcome === 'ended') return this.asking.advance()
    if (outcome.broken) this.#refuse(outcome.broken)
    await this.#load(message.chat, outcome.broken?.type === 'reset' ? null : run)
  }

  #refuse(error: unknown): ApiError {
    const isKeyMissing =
      (error instanceof ApiError || error instanceof StreamError) && error.type === 'forbidden'
    if (isKeyMissing) this.isLocked = true
    if (error instanceof ApiError) return error
    if (error instanceof StreamError) return new ApiError('refused', error.type, error.message)
    throw error
  }
}
