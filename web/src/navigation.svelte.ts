/** Which chat the page shows, by its address, and the way from one to another. */
import { addressOf, chatOf, linkOf, messageOf } from './address.ts'
import type { Conversation } from './conversation.svelte.ts'

/** Hears that a chat is being opened, at its end or at this message. */
export type OnShown = (opened: Promise<void>, chat: string | null, message: string | null) => void

export class Navigation {
  /** What a sign-in link has brought, until it is used. */
  link = $state.raw(linkOf(location.hash))
  readonly #conversation: Conversation
  readonly #onShown: OnShown

  constructor(conversation: Conversation, onShown: OnShown) {
    this.#conversation = conversation
    this.#onShown = onShown
  }

  /** Show what the address names. */
  follow(): void {
    this.link = linkOf(location.hash)
    this.#show(chatOf(location.hash), messageOf(location.hash))
  }

  /** At once and not when the browser tells of the new address: what is typed next belongs to it. */
  goTo(chat: string | null): void {
    if (chatOf(location.hash) !== chat) history.pushState(null, '', addressOf(chat))
    this.link = null
    this.#show(chat, null)
  }

  /** A chat gets its address when the server has made it, without a new entry in the browser's history. */
  keepUp(): void {
    const { chat } = this.#conversation
    if (chat !== null && chatOf(location.hash) !== chat) this.#replace(chat)
  }

  /** Whoever is here now is let in, and sees what was there before. */
  enter(): void {
    const { chat } = this.#conversation
    if (this.link !== null) this.#replace(chat)
    this.link = null
    this.#show(chat, null)
  }

  #show(chat: string | null, message: string | null): void {
    this.#onShown(this.#conversation.open(chat, message), chat, message)
  }

  #replace(chat: string | null): void {
    history.replaceState(null, '', addressOf(chat))
  }
}
