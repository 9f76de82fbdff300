/**
 * The conversation on the page: what is shown of it, the run that is being followed, the question that is
 * on its way. Everything true is on the server; this only reads it and asks.
 */
import { ApiError, newKey, patiently, type Api, type Ask, type Taken } from './api.ts'
import { keepOutgoing, keptOutgoing, type Outgoing } from './outgoing.ts'
import { keepSettings, keptSettings, UNSET } from './panel/settings.ts'
import { newestPath, questionOf, told, upTo } from './path.ts'
import { kept } from './storage.ts'
import { StreamError } from './stream/errors.ts'
import { pause } from './stream/backoff.ts'
import { blank, fold, type Answer } from './stream/fold.ts'
import { follow, followLive, type FollowOptions } from './stream/follow.ts'
import { Network } from './stream/network.ts'
import type { Link } from './stream/sse.ts'
import {
  isTerminal,
  placeOf,
  type Chat,
  type EngineStatus,
  type LiveNews,
  type Message,
  type Model,
  type Settings,
} from './stream/wire.ts'
import type { World } from './stream/world.ts'

/** A run that is being followed. */
export interface Live {
  readonly run: string
  readonly message: string
  readonly answer: Answer
  readonly link: Link
  readonly isStopping: boolean
  /** What came last was said before, while this page did not listen. */
  readonly isReplay: boolean
}

const EARLIER_CHATS = 8
const UNREAD_PAUSE_MS = 1_000

export class Conversation {
  chat = $state.raw<string | null>(null)
  title = $state.raw('')
  messages = $state.raw<readonly Message[]>([])
  live = $state.raw<Live | null>(null)
  outgoing = $state.raw<Outgoing | null>(null)
  /** Why the outgoing ask is not through: `offline` mends itself, all else needs the reader. */
  sendProblem = $state.raw<ApiError | null>(null)
  /** Why the chat cannot be shown. */
  loadProblem = $state.raw<ApiError | null>(null)
  isLoading = $state.raw(false)
  isLocked = $state.raw(false)
  draft = $state.raw('')
  engine = $state.raw<(EngineStatus & Partial<Model>) | null>(null)
  settings = $state.raw<Settings>(UNSET)
  /** The build of the page that the server has; null before it has told, or where it has none. */
  build = $state.raw<string | null>(null)
  serverLink = $state.raw<Link>('connecting')
  earlier = $state.raw<readonly Chat[]>([])

  readonly #api: Api
  readonly #world: World
  readonly #network = new Network()
  /** Ends whatever the conversation shown before was waiting for. */
  #shown = new AbortController()
  /** Ends the attempts to send what is taken back. */
  #sending = new AbortController()
  #watching = new AbortController()

  constructor(api: Api, world: World) {
    this.#api = api
    this.#world = world
  }

  get isBusy(): boolean {
    // Before its messages are known, a question to a chat would have no place in it.
    const isUnknown = this.isLoading && this.messages.length === 0
    return this.live !== null || this.outgoing !== null || isUnknown
  }

  /** Show a chat, or an empty page for a new one. */
  async open(chat: string | null): Promise<void> {
    this.#shown.abort()
    this.#shown = new AbortController()
    this.chat = chat
    this.title = ''
    this.messages = []
    this.live = null
    this.outgoing = waitingFor(chat)
    this.sendProblem = null
    this.loadProblem = null
    this.isLoading = false
    this.settings = chat === null ? keptSettings() : UNSET
    this.draft = kept.get(`draft.${chat ?? 'new'}`) ?? ''
    const { outgoing } = this
    const { signal } = this.#shown
    await (chat === null ? this.#listEarlier() : this.#load(chat))
    // What has been asked or taken back meanwhile is under way already, or no longer wanted.
    if (!signal.aborted && outgoing && this.outgoing === outgoing) await this.#send(outgoing)
  }

  keepDraft(text: string): void {
    this.draft = text
    kept.set(`draft.${this.chat ?? 'new'}`, text)
  }

  /** What answers are asked for with from now on. Throws an `ApiError`. */
  async keepSettings(settings: Settings): Promise<void> {
    const { chat } = this
    if (chat === null) keepSettings(settings)
    const kept =
      chat === null ? settings : (await this.#api.changeSettings(chat, settings)).settings
    if (this.chat === chat) this.settings = kept
  }

  async ask(content: string): Promise<void> {
    if (this.isBusy) return
    const parent = this.messages.at(-1)?.id ?? null
    this.keepDraft('')
    await this.#start({ content, parent })
  }

  /** Answer the same question again. */
  async retry(message: Message): Promise<void> {
    await this.#start({ regenerate: message.id })
  }

  /** Go on with an answer that was cut, stopped or failed. */
  async carryOn(message: Message): Promise<void> {
    await this.#start({ continue: message.id })
  }

  async sendAgain(): Promise<void> {
    if (this.outgoing) await this.#send(this.outgoing)
  }

  /** Give the question back to the writer. */
  withdraw(): void {
    const ask = this.outgoing?.ask
    this.#sending.abort()
    this.#setOutgoing(null)
    if (ask && 'content' in ask) this.keepDraft(ask.content)
  }

  async stop(): Promise<void> {
    const { live } = this
    if (live === null) return
    const { signal } = this.#shown
    this.live = { ...live, isStopping: true }
    try {
      await patiently(() => this.#api.stop(live.run), this.#world, signal)
    } catch (error) {
      if (signal.aborted) return
      if (!(error instanceof ApiError)) throw error
      // What the run does now, the stream tells; a stop that was refused is offered again.
      if (this.live?.run === live.run) this.live = { ...this.live, isStopping: false }
    }
  }

  async signIn(key: string): Promise<void> {
    await this.#api.signIn(key)
    this.isLocked = false
    void this.watch()
    await this.open(this.chat)
  }

  /** Hear of what starts and ends elsewhere, and how the engine fares, for as long as the page lives. */
  async watch(): Promise<void> {
    this.#watching.abort()
    this.#watching = new AbortController()
    const { signal } = this.#watching
    try {
      const options = { url: this.#api.liveUrl, ...this.#way(signal) }
      for await (const got of followLive(options)) {
        if (typeof got === 'string') this.serverLink = got
        else for (const news of got) this.#hearNews(news)
      }
    } catch (error) {
      this.#refuse(error)
    }
  }

  #hearNews(news: LiveNews): void {
    switch (news.type) {
      case 'engine':
        this.engine = news.status
        return
      case 'snapshot':
        this.engine = news.engine
        this.build = news.build ?? null
        return this.#reconcile()
      case 'run':
        if (news.run.chat === this.chat && news.run.id !== this.live?.run) this.#reconcile()
    }
  }

  /** Read the chat again where something may have happened to it without us. */
  #reconcile(): void {
    if (this.chat !== null && !this.isBusy && !this.isLoading) {
      void this.#load(this.chat)
    }
  }

  async #listEarlier(): Promise<void> {
    try {
      this.earlier = (await this.#api.chats()).slice(0, EARLIER_CHATS)
    } catch (error) {
      this.#refuse(error)
    }
  }

  /** Read the chat and follow its last answer while it lives, unless that is the run `unreadable`. */
  async #load(chat: string, unreadable: string | null = null): Promise<void> {
    const { signal } = this.#shown
    const before = this.messages
    this.isLoading = true
    try {
      const contents = await patiently(() => this.#api.chat(chat), this.#world, signal)
      if (signal.aborted) return
      this.loadProblem = null
      this.title = contents.chat.title
      this.settings = contents.chat.settings
      // What has been asked meanwhile is newer than what was read.
      if (this.messages !== before) return
      this.messages = newestPath(contents.messages)
    } catch (error) {
      if (!signal.aborted) this.loadProblem = this.#refuse(error)
      return
    } finally {
      if (!signal.aborted) this.isLoading = false
    }
    const last = this.messages.at(-1)
    const isAlive = last !== undefined && !isTerminal(last.state)
    if (isAlive && last.run && last.run !== unreadable) void this.#read(last, last.run)
  }

  async #start(ask: Ask): Promise<void> {
    if (!this.isBusy) await this.#send({ key: newKey(), chat: this.chat, ask })
  }

  async #send(outgoing: Outgoing): Promise<void> {
    this.#setOutgoing(outgoing)
    this.#sending = new AbortController()
    const signal = AbortSignal.any([this.#shown.signal, this.#sending.signal])
    try {
      const chat = outgoing.chat ?? (await this.#createChat(outgoing, signal))
      const ask = (): ReturnType<Api['ask']> => this.#api.ask(chat, outgoing.ask, outgoing.key)
      const taken = await this.#untilTaken(ask, signal)
      if (!signal.aborted) this.#taken(outgoing.ask, taken)
    } catch (error) {
      if (!signal.aborted) this.sendProblem = this.#refuse(error)
    }
  }

  async #createChat(outgoing: Outgoing, signal: AbortSignal): Promise<string> {
    const chat = await this.#untilTaken(() => this.#api.createChat(this.settings), signal)
    if (!signal.aborted) {
      keepSettings(UNSET)
      this.chat = chat.id
      this.#setOutgoing({ ...outgoing, chat: chat.id })
    }
    return chat.id
  }

  /** Ask until the server is there, and say meanwhile why nothing happens. */
  #untilTaken<T>(ask: () => Promise<T>, signal: AbortSignal): Promise<T> {
    return patiently(ask, this.#world, signal, (error) => {
      if (!signal.aborted) this.sendProblem = error
    })
  }

  /** The server has the ask: show what it made of it and read the answer. */
  #taken(ask: Ask, { message: answer, chat }: Taken): void {
    this.#setOutgoing(null)
    this.title = chat.title
    const before = this.messages.filter(({ id }) => id !== answer.id)
    const kept = 'regenerate' in ask ? upTo(before, answer.parent) : before
    const asked = 'content' in ask ? [questionOf(ask.content, answer)] : []
    this.messages = [...kept, ...asked, answer]
    // It was asked for before, by a tab that reloaded, and has ended since.
    if (isTerminal(answer.state)) void this.#load(answer.chat)
    else if (answer.run !== null) void this.#read(answer, answer.run)
  }

  /** Follow the run that writes a message, from where its parts tell it already. */
  async #read(message: Message, run: string): Promise<void> {
    const { signal } = this.#shown
    const after = message.last_id === null ? null : placeOf(message.last_id)
    const answer = blank(message.parts, after)
    const isNew = { link: 'connecting', isStopping: false, isReplay: false } as const
    this.live = { run, message: message.id, answer, ...isNew }
    const url = this.#api.eventsUrl(run)
    const broken = await this.#followToEnd({ url, after, ...this.#way(signal) })
    if (signal.aborted) return
    const isWhole = isTerminal(this.live.answer.state)
    // Only a server that contradicts itself brings us here twice: not faster than this.
    if (!isWhole) await pause(UNREAD_PAUSE_MS, this.#world, signal)
    if (signal.aborted) return
    this.live = null
    if (!isWhole) await this.#load(message.chat, broken?.type === 'reset' ? null : run)
  }

  /** Returns why the run cannot be read to its end, if it cannot. */
  async #followToEnd(options: FollowOptions): Promise<StreamError | null> {
    try {
      for await (const got of follow(options)) {
        if (options.signal.aborted || this.live === null) return null
        if (got.type === 'link') this.live = { ...this.live, link: got.link }
        else this.#tell({ ...this.live, isReplay: got.isReplay }, fold(this.live.answer, got.items))
      }
      return null
    } catch (error) {
      if (!(error instanceof StreamError)) throw error
      if (!options.signal.aborted) this.#refuse(error)
      return error
    }
  }

  #tell(live: Live, answer: Answer): void {
    this.live = { ...live, answer }
    this.messages = this.messages.map((message) =>
      message.id === live.message ? told(message, answer) : message,
    )
  }

  #way(signal: AbortSignal): Pick<FollowOptions, 'world' | 'network' | 'signal'> {
    return { world: this.#world, network: this.#network, signal }
  }

  #setOutgoing(outgoing: Outgoing | null): void {
    this.outgoing = outgoing
    this.sendProblem = null
    keepOutgoing(outgoing)
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

function waitingFor(chat: string | null): Outgoing | null {
  const waiting = keptOutgoing()
  return waiting?.chat === chat ? waiting : null
}
