/** The messages of the chat that is shown, in all their branches, and which branch that is. */
import { isTerminal, type Message } from '../stream/wire.ts'
import { keepChoice, keptChoice } from './choice.ts'
import type { Following } from './following.svelte.ts'
import { byParent, merged, pathThrough, told, withMessages } from './tree.ts'

export class Branches {
  /** As they were read; what has been followed since, `Following` has. */
  #tree = $state.raw<readonly Message[]>([])
  /** The message through which the path goes that is shown. */
  #through = $state.raw<string | null>(null)
  readonly #following: Following
  readonly #path = $derived(pathThrough(this.#tree, this.#through))

  readonly #byParent = $derived(byParent(this.#tree))

  constructor(following: Following) {
    this.#following = following
  }

  /** The branch that is shown, as far as its messages are known. */
  readonly path: readonly Message[] = $derived(this.#path.map((message) => this.#asItIs(message)))

  get isEmpty(): boolean {
    return this.#tree.length === 0
  }

  /** The message that ends the path, and its run while that lives. */
  get end(): { readonly message: Message | null; readonly run: string | null } {
    const message = this.#path.at(-1) ?? null
    return { message, run: message && !isTerminal(message.state) ? message.run : null }
  }

  message(id: string): Message | null {
    const message = this.#tree.find((one) => one.id === id)
    return message ? this.#asItIs(message) : null
  }

  /** The messages that stand in one another's place, this one among them, oldest first. */
  siblingsOf({ parent }: Message): readonly Message[] {
    return this.#byParent.get(parent) ?? []
  }

  /** Begin anew, with the branch through this message where one is given. */
  clear(through: string | null): void {
    this.#tree = []
    this.#through = through
  }

  /** Take what was read. What is shown stays shown, whatever has come in other branches. */
  read(chat: string, messages: readonly Message[]): void {
    this.#through ??= keptChoice(chat, messages)
    this.#tree = merged(this.#tree, messages, this.#following.live?.message ?? null)
    this.#stay()
  }

  /** Take what has been asked just now; `isShown`: the branch through it is to be shown. */
  add(asked: readonly Message[], isShown: boolean): void {
    this.#tree = withMessages(this.#tree, asked)
    if (isShown) this.#through = asked.at(-1)?.id ?? null
    this.#stay()
  }

  /** Show the branch through this message, here and wherever this browser opens the chat next. */
  show(message: Message): void {
    this.#through = message.id
    this.#stay()
    keepChoice(message.chat, this.#tree, this.#through)
  }

  /** Keep what the run that is followed has told, and let go of it. */
  settle(): void {
    const { live } = this.#following
    const message = live && this.message(live.message)
    if (message) this.#tree = withMessages(this.#tree, [message])
    this.#following.leave()
  }

  #stay(): void {
    this.#through = this.#path.at(-1)?.id ?? null
  }

  #asItIs(message: Message): Message {
    const { live } = this.#following
    return live?.message === message.id ? told(message, live.answer) : message
  }
}
