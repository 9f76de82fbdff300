/**
 * What this tab has asked, in all chats, until the server has taken it. Some of it waits for the end of an answer;
 * then it goes by itself, whichever chat is shown and whether or not the tab is. When the tab is closed, another one
 * goes on with it, at the latest the next that is opened.
 */
import { ApiError, newKey, patiently, type Api, type Ask, type Taken } from '../api.ts'
import { UNSET } from '../panel/settings.ts'
import { remediesFor, type Remedy } from '../remedies.ts'
import { pause } from '../stream/backoff.ts'
import { isTerminal, type Chat, type RunState, type Settings } from '../stream/wire.ts'
import type { World } from '../stream/world.ts'
import {
  asksOf,
  beingEdited,
  inChat,
  keepLine,
  keptLine,
  reworded,
  tabsWithLines,
  takeLine,
  waitingFor,
  withoutTaken,
  withoutWithdrawn,
  type After,
  type Line,
  type Outgoing,
} from './outgoing.ts'
import type { Tabs } from './tabs.ts'

/** Where nobody tells us that an answer has ended, as in a hidden tab, the server is asked this often. */
const LOOK_MS = 5_000
const CONTRADICTED_MS = 1_000

export interface Owner {
  /** The state of an answer, where it is known; null where the server is to be asked. */
  readonly stateOf: (answer: string) => RunState | null
  /** What a chat that does not exist yet is to be made with. */
  readonly settings: () => Settings
  readonly onChat: (chat: Chat) => void
  readonly onTaken: (asked: Outgoing, taken: Taken) => void
  /** A key is missing. */
  readonly onForbidden: () => void
}

export class Asking {
  line = $state.raw<Line>([])
  /** Why what was sent is not through: `offline` mends itself, all else needs the reader. */
  problems = $state.raw<ReadonlyMap<string, ApiError>>(new Map())

  readonly #api: Api
  readonly #world: World
  readonly #owner: Owner
  readonly #tabs: Tabs
  /** Whether the line is there for another tab to take it. */
  #isKept = false
  /** What is being sent or looked at, and how that is called off. */
  readonly #underWay = new Map<string, AbortController>()
  #callOff: (() => void) | null = null

  constructor(api: Api, world: World, tabs: Tabs, owner: Owner) {
    this.#api = api
    this.#world = world
    this.#tabs = tabs
    this.#owner = owner
    this.#set(asksOf(keptLine(tabs.name), api.user))
  }

  /** Go on with what tabs have left that are gone, now and for as long as the page lives. */
  watch(): void {
    this.#tabs.onLeft = () => void this.#takeOver()
    this.#world.onWake((wake) => {
      if (wake !== 'hidden') void this.#takeOver()
    })
    void this.#takeOver()
  }

  /** Resolves when it has been sent, or is seen to have to wait. */
  async add(chat: string | null, ask: Ask, after: After | null): Promise<void> {
    const forNew = chat === null ? { settings: this.#owner.settings() } : {}
    const { user } = this.#api
    const asked = {
      key: newKey(),
      ...(user === null ? {} : { by: user }),
      chat,
      ...forNew,
      ask,
      after,
    }
    this.#set([...this.line, asked])
    await this.#try(asked.key)
  }

  /** Send what can go. To be called when an answer has ended, or may have. */
  async advance(): Promise<void> {
    const idle = this.line.filter(({ key }) => !needsReader(this.problems.get(key)))
    await Promise.all(idle.map(({ key }) => this.#try(key)))
  }

  async again(key: string): Promise<void> {
    this.#blame(key, null)
    await this.#try(key)
  }

  /** Something has changed that may have been in the way of what was refused in this chat. */
  async againAfter(remedy: Remedy, chat: string | null): Promise<void> {
    const isHelped = ({ key, chat: its }: Outgoing): boolean => {
      const problem = this.problems.get(key)
      return its === chat && problem !== undefined && remediesFor(problem).includes(remedy)
    }
    await Promise.all(this.line.filter(isHelped).map(({ key }) => this.again(key)))
  }

  /** Send it although the answer before it has failed. */
  async release(key: string): Promise<void> {
    this.#set(waitingFor(this.line, key, null))
    await this.#try(key)
  }

  withdraw(key: string): void {
    this.#forget(key)
    this.#set(withoutWithdrawn(this.line, key))
    void this.advance()
  }

  reword(key: string, content: string): void {
    this.#forget(key)
    this.#set(reworded(this.line, key, content, newKey()))
    void this.advance()
  }

  /** While it is being put in other words it does not go. */
  hold(key: string, isEdited: boolean): void {
    this.#set(beingEdited(this.line, key, isEdited))
    if (!isEdited) void this.advance()
  }

  /** Another tab may have taken all of it over while this one was frozen. */
  readAgain(): void {
    if (!this.#isKept || tabsWithLines().includes(this.#tabs.name)) return
    for (const { key } of this.line) this.#forget(key)
    this.line = []
    this.#isKept = false
  }

  async #takeOver(): Promise<void> {
    const gone = await this.#tabs.missing(tabsWithLines())
    this.readAgain()
    const left = asksOf(gone.flatMap(takeLine), this.#api.user)
    const found = left.filter(({ key }) => this.#find(key) === undefined)
    if (found.length === 0) return
    this.#set([...this.line, ...found])
    await this.advance()
  }

  async #try(key: string): Promise<void> {
    if (this.#underWay.has(key)) return
    const calledOff = new AbortController()
    this.#underWay.set(key, calledOff)
    try {
      while (await this.#mayGo(key, calledOff.signal)) {
        if (await this.#send(key, calledOff.signal)) return
      }
    } catch (error) {
      if (!calledOff.signal.aborted) this.#refuse(key, error)
    } finally {
      if (this.#underWay.get(key) === calledOff) this.#underWay.delete(key)
    }
  }

  /** Whether nothing is in its way; otherwise somebody looks again in a while. */
  async #mayGo(key: string, signal: AbortSignal): Promise<boolean> {
    this.readAgain()
    const asked = this.#find(key)
    if (asked === undefined || asked.isEdited) return false
    const { after } = asked
    if (after === null) return true
    if ('asked' in after) return false
    const state = await this.#stateOf(after.answer, signal)
    if (signal.aborted || this.#find(key)?.isEdited) return false
    // What failed may be gone on with, or answered anew: that is for the reader to decide.
    if (!isTerminal(state)) this.#lookLater()
    return state === 'done' || state === 'stopped'
  }

  async #stateOf(answer: string, signal: AbortSignal): Promise<RunState> {
    const known = this.#owner.stateOf(answer)
    // A hidden tab follows nothing, so what it knows of a living answer is old.
    if (known !== null && (isTerminal(known) || !this.#world.isHidden())) return known
    const message = await patiently(() => this.#api.message(answer), this.#world, signal)
    return message.state
  }

  #lookLater(): void {
    this.#callOff ??= this.#world.later(() => {
      this.#callOff = null
      void this.advance()
    }, LOOK_MS)
  }

  /** Returns whether that was all; false where it has to wait after all. */
  async #send(key: string, signal: AbortSignal): Promise<boolean> {
    const asked = this.#find(key)
    if (asked === undefined) return true
    const chat = asked.chat ?? (await this.#createChat(asked, signal))
    try {
      const ask = (): Promise<Taken> => this.#api.ask(chat, asked.ask, key)
      const taken = await this.#untilTaken(ask, key, signal)
      if (!signal.aborted) this.#taken(key, taken)
      return true
    } catch (error) {
      if (signal.aborted || !this.#isTooEarly(asked, error)) throw error
      await pause(CONTRADICTED_MS, this.#world, signal)
      return signal.aborted
    }
  }

  /** Whether another tab has an answer running there; then this waits for its end. */
  #isTooEarly({ key, ask }: Outgoing, error: unknown): boolean {
    const parent = 'content' in ask ? ask.parent : null
    if (!(error instanceof ApiError) || error.code !== 'run_active' || parent === null) return false
    this.#set(waitingFor(this.line, key, { answer: parent }))
    return true
  }

  async #createChat({ key, settings = UNSET }: Outgoing, signal: AbortSignal): Promise<string> {
    const chat = await this.#untilTaken(() => this.#api.createChat(key, settings), key, signal)
    if (!signal.aborted) {
      this.#set(inChat(this.line, chat.id))
      this.#owner.onChat(chat)
    }
    return chat.id
  }

  /** Ask until the server is there, and say meanwhile why nothing happens. */
  #untilTaken<T>(ask: () => Promise<T>, key: string, signal: AbortSignal): Promise<T> {
    return patiently(ask, this.#world, signal, (error) => {
      if (!signal.aborted) this.#blame(key, error)
    })
  }

  #taken(key: string, taken: Taken): void {
    const asked = this.#find(key)
    this.#blame(key, null)
    this.#set(withoutTaken(this.line, key, taken.message.id))
    if (asked) this.#owner.onTaken(asked, taken)
    void this.advance()
  }

  #refuse(key: string, error: unknown): void {
    if (!(error instanceof ApiError)) throw error
    if (error.type === 'forbidden') this.#owner.onForbidden()
    this.#blame(key, error)
  }

  #forget(key: string): void {
    this.#underWay.get(key)?.abort()
    this.#underWay.delete(key)
    this.#blame(key, null)
  }

  #blame(key: string, problem: ApiError | null): void {
    const problems = new Map(this.problems)
    if (problem === null) problems.delete(key)
    else problems.set(key, problem)
    this.problems = problems
  }

  #find(key: string): Outgoing | undefined {
    return this.line.find((one) => one.key === key)
  }

  #set(line: Line): void {
    this.line = line
    this.#isKept = keepLine(this.#tabs.name, line)
  }
}

function needsReader(problem: ApiError | undefined): boolean {
  return problem?.type === 'busy' || problem?.type === 'refused'
}
