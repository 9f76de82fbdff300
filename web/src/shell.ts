/** What leads from one part of the page to another: a question, a chat, whoever signs in. */
import { tick } from 'svelte'
import type { Account } from './account.svelte.ts'
import type { Proof } from './api.ts'
import type { Conversation } from './conversation.svelte.ts'
import type { Navigation } from './navigation.svelte.ts'
import type { Layout } from './sidebar/layout.svelte.ts'
import type { Deleted, Library } from './sidebar/library.svelte.ts'
import type { Chat } from './stream/wire.ts'

export interface Parts {
  readonly conversation: Conversation
  readonly library: Library
  readonly layout: Layout
  readonly account: Account
  readonly navigation: Navigation
  /** What is asked now comes to the top of what is read. */
  readonly toQuestion: () => void
  /** Where questions are written gets the focus. */
  readonly focus: () => void
}

export class Shell {
  readonly #parts: Parts

  constructor(parts: Parts) {
    this.#parts = parts
  }

  /** Show what the address names. */
  follow(): void {
    this.#parts.layout.leave()
    this.#parts.navigation.follow()
  }

  /** To be called when another tab has changed what the browser keeps. */
  hearOtherTabs(event: StorageEvent): void {
    const { account, conversation, library } = this.#parts
    account.hear(event)
    conversation.asking.readAgain()
    library.attention.readAgain()
  }

  ask(text: string): void {
    const { conversation, toQuestion } = this.#parts
    // What waits below an answer must not take the answer out of view.
    if (!conversation.isBusy) toQuestion()
    void conversation.writing.ask(text)
  }

  /** A new chat, with this to be asked. */
  startNew(draft = ''): void {
    const { conversation, focus, layout, navigation } = this.#parts
    layout.leave()
    navigation.goTo(null)
    if (draft === '') return
    conversation.writing.putInFront(draft)
    focus()
  }

  remove(chat: Chat): void {
    const { conversation, library, navigation } = this.#parts
    const isShown = conversation.chat === chat.id
    if (isShown) navigation.goTo(null)
    void library.delete(chat, isShown)
  }

  putBack({ chat, wasShown }: Deleted): void {
    if (wasShown) this.#parts.navigation.goTo(chat.id)
  }

  async signIn(proof: Proof): Promise<void> {
    const { account, conversation, focus, navigation } = this.#parts
    if (!(await account.signIn(proof))) return
    conversation.unlock()
    navigation.enter()
    await tick()
    focus()
  }
}
