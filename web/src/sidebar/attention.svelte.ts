/**
 * Which chats are being answered, and which answers nobody has looked at yet.
 *
 * Both are remembered in the browser. Whichever of its tabs hears first that an answer has ended takes it off
 * the list of the living; so a tab that was hidden does not take for new what another has shown already, and an
 * answer that ended while no tab was open is still found.
 */
import { kept } from '../storage.ts'
import { isTerminal, type LiveNews, type Run } from '../stream/wire.ts'

const MOST_UNREAD = 200

export interface Finished {
  readonly chat: string
  readonly isFailed: boolean
}

export class Attention {
  /** Chats, as everything here. */
  living = $state.raw<ReadonlySet<string>>(new Set())
  unread = $state.raw<ReadonlySet<string>>(keptSet('unread'))
  /** What has just ended elsewhere. */
  finished = $state.raw<Finished | null>(null)
  #shown: string | null = null
  readonly #runs = new Map<string, string>()

  hear(news: LiveNews): void {
    if (news.type === 'snapshot') this.#begin(news.runs)
    else if (news.type === 'run') this.#hearRun(news.run)
    else if (news.type === 'chat' && news.chat === null) this.#forget(news.id)
  }

  /** The reader looks at this chat now. */
  show(chat: string | null): void {
    this.#shown = chat
    if (chat !== null) this.#forget(chat)
  }

  dismiss(): void {
    this.finished = null
  }

  /** Another tab has written down what it knows. */
  readAgain(): void {
    this.unread = keptSet('unread')
    if (this.#shown !== null) this.#forget(this.#shown)
    if (this.finished && !this.unread.has(this.finished.chat)) this.finished = null
  }

  #begin(runs: readonly Run[]): void {
    this.#runs.clear()
    for (const run of runs) this.#note(run)
    const now = new Set(this.#runs.values())
    for (const chat of keptSet('living')) if (!now.has(chat)) this.#markUnread(chat)
    this.#setLiving()
  }

  #hearRun(run: Run): void {
    this.#note(run)
    if (run.chat === null) return
    const isNew = keptSet('living').has(run.chat)
    this.#setLiving()
    // Who has stopped an answer knows of its end.
    if (!isNew || this.living.has(run.chat) || run.state === 'stopped') return
    if (this.#markUnread(run.chat)) {
      this.finished = { chat: run.chat, isFailed: run.state === 'failed' }
    }
  }

  #note(run: Run): void {
    if (isTerminal(run.state)) this.#runs.delete(run.id)
    else if (run.chat !== null) this.#runs.set(run.id, run.chat)
  }

  #setLiving(): void {
    this.living = new Set(this.#runs.values())
    keepSet('living', this.living)
  }

  #markUnread(chat: string): boolean {
    if (chat === this.#shown) return false
    this.#setUnread([...keptSet('unread'), chat])
    return true
  }

  #forget(chat: string): void {
    if (this.finished?.chat === chat) this.finished = null
    if (this.unread.has(chat)) this.#setUnread([...this.unread].filter((other) => other !== chat))
  }

  #setUnread(chats: readonly string[]): void {
    this.unread = new Set(chats.slice(-MOST_UNREAD))
    keepSet('unread', this.unread)
  }
}

function keptSet(name: string): ReadonlySet<string> {
  const text = kept.get(name)
  return new Set(text === null ? [] : (JSON.parse(text) as string[]))
}

function keepSet(name: string, chats: ReadonlySet<string>): void {
  kept.set(name, chats.size === 0 ? '' : JSON.stringify([...chats]))
}
