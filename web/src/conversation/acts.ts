/** What a reader does at a message of the conversation, and where the view and the focus are behind it. */
import { tick } from 'svelte'
import type { Conversation } from '../conversation.svelte.ts'
import type { Panel } from '../panel/panel.svelte.ts'
import type { Remedy } from '../remedies.ts'
import { textOf } from '../stream/fold.ts'
import type { Message } from '../stream/wire.ts'
import { controlOf } from './places.ts'
import { walk } from './walking.ts'

/** What stands around the conversation. */
export interface Around {
  /** An answer has been asked for. */
  readonly onAsked: () => void
  /** The reader has moved to another branch: what is in view stays there. */
  readonly onStay: () => void
  /** The reader has done with what had the focus. */
  readonly onDone: () => void
  /** A new chat, with this to be asked. */
  readonly onNew: (draft: string) => void
}

export interface Version {
  readonly at: number
  readonly count: number
}

export class Acts {
  readonly #conversation: Conversation
  readonly #panel: Pick<Panel, 'dialog'>
  readonly #around: Around
  /** Where the conversation is drawn. */
  readonly #list: () => HTMLElement

  constructor(
    conversation: Conversation,
    panel: Pick<Panel, 'dialog'>,
    around: Around,
    list: () => HTMLElement,
  ) {
    this.#conversation = conversation
    this.#panel = panel
    this.#around = around
    this.#list = list
  }

  versionOf(message: Message): Version {
    const siblings = this.#conversation.siblingsOf(message)
    return { at: siblings.findIndex(({ id }) => id === message.id), count: siblings.length }
  }

  walkFrom(message: Message, step: -1 | 1): void {
    const next = this.#conversation.siblingsOf(message)[this.versionOf(message).at + step]
    if (!next) return
    this.#around.onStay()
    void walk(this.#list(), [message, next], step, (shown) => this.#conversation.show(shown))
  }

  regenerate(message: Message): void {
    void this.#conversation.writing.regenerate(message)
    this.#around.onAsked()
    this.#around.onDone()
  }

  carryOn(message: Message): void {
    void this.#conversation.writing.carryOn(message)
    this.#around.onDone()
  }

  async edit(of: string, text: string): Promise<void> {
    this.#conversation.writing.keepEdit({ of, text })
    await this.#focus(of, '[data-testid=edit-field]')
  }

  sendEdited(text: string): void {
    const { waiting, writing } = this.#conversation
    const isWaiting = waiting.some(({ key }) => key === writing.edit?.of)
    void writing.askEdited(text)
    if (!isWaiting) this.#around.onAsked()
    this.#around.onDone()
  }

  async cancelEdit(of: string): Promise<void> {
    this.#conversation.writing.keepEdit(null)
    await this.#focus(of, '[data-testid=edit]')
  }

  help(remedy: Remedy, message: Message): void {
    const conversation = this.#conversation
    const question = message.parent === null ? null : conversation.message(message.parent)
    const text = question ? textOf(question.parts) : ''
    if (remedy === 'again' || remedy === 'anew') this.regenerate(message)
    if (remedy === 'edit' && question) void this.edit(question.id, text)
    if (remedy === 'settings') this.#panel.dialog = 'settings'
    if (remedy === 'newChat') this.#around.onNew(text)
    if (remedy === 'reload') void conversation.open(conversation.chat)
  }

  async #focus(message: string, selector: string): Promise<void> {
    await tick()
    controlOf(this.#list(), message, selector)?.focus()
  }
}
