/** What the reader writes in the chat that is shown: a draft, an edit, and what may be asked. */
import type { Message } from '../stream/wire.ts'
import { isTerminal } from '../stream/wire.ts'
import type { Asking } from './asking.svelte.ts'
import { keepDraft, keepEdit, keptDraft, keptEdit, moveToChat, type Edit } from './drafts.ts'
import { contentOf, type After, type Line, type Outgoing } from './outgoing.ts'

/** Where it is written. */
export interface Place {
  readonly chat: string | null
  readonly messages: readonly Message[]
  readonly waiting: Line
  readonly isSending: boolean
  readonly isUnknown: boolean
  readonly message: (id: string) => Message | null
}

export class Writing {
  draft = $state.raw('')
  /** The question that is being put in other words. */
  edit = $state.raw<Edit | null>(null)
  readonly #place: Place
  readonly #asking: Asking

  constructor(place: Place, asking: Asking) {
    this.#place = place
    this.#asking = asking
  }

  /** Go on with what was begun in this chat. */
  open(chat: string | null): void {
    this.draft = keptDraft(chat)
    this.edit = keptEdit(chat)
  }

  /** The new chat has become this one. */
  moveToChat(chat: string): void {
    moveToChat(chat)
  }

  keepDraft(text: string): void {
    this.draft = text
    keepDraft(this.#place.chat, text)
  }

  keepEdit(edit: Edit | null): void {
    const before = this.edit
    this.edit = edit
    keepEdit(this.#place.chat, edit)
    if (before?.of === edit?.of) return
    // What waits does not go while it is being edited.
    if (edit) this.#asking.hold(edit.of, true)
    if (before) this.#asking.hold(before.of, false)
  }

  /** Ask behind all that is there. While an answer is being written, or another question waits, it waits too. */
  async ask(content: string): Promise<void> {
    const { chat, messages, waiting, isUnknown } = this.#place
    if (isUnknown) return
    this.keepDraft('')
    const before = waiting.at(-1)
    const last = messages.at(-1) ?? null
    const isAlive = last !== null && !isTerminal(last.state)
    const after: After | null = before
      ? { asked: before.key }
      : isAlive
        ? { answer: last.id }
        : null
    await this.#asking.add(chat, { content, parent: before ? null : (last?.id ?? null) }, after)
  }

  /** Ask in other words what is being edited: beside a message, or in the place of a question that waits. */
  async askEdited(content: string): Promise<void> {
    const { edit } = this
    if (edit === null) return
    const { chat, isSending } = this.#place
    const message = this.#place.message(edit.of)
    if (message && isSending) return
    if (message === null) this.#asking.reword(edit.of, content)
    this.keepEdit(null)
    if (message) await this.#asking.add(chat, { content, parent: message.parent }, null)
  }

  /** Answer the same question again, in a branch beside this answer. */
  async regenerate({ id }: Message): Promise<void> {
    const { chat, isSending } = this.#place
    if (!isSending) await this.#asking.add(chat, { regenerate: id }, null)
  }

  /** Go on with an answer that was cut, stopped or failed. */
  async carryOn({ id }: Message): Promise<void> {
    const { chat, isSending } = this.#place
    if (!isSending) await this.#asking.add(chat, { continue: id }, null)
  }

  /** Ask for another answer instead of more of this one. */
  async askAnew({ key, ask }: Outgoing): Promise<void> {
    if (!('continue' in ask)) return
    this.#asking.withdraw(key)
    await this.#asking.add(this.#place.chat, { regenerate: ask.continue }, null)
  }

  /** Begin with this, in front of what has been typed. */
  putInFront(text: string): void {
    this.keepDraft([text, this.draft].filter(Boolean).join('\n\n'))
  }

  /** Give a question back to the writer, in front of what has been typed since. */
  withdraw(asked: Outgoing): void {
    const content = contentOf(asked)
    this.#asking.withdraw(asked.key)
    if (this.edit?.of === asked.key) this.keepEdit(null)
    if (content !== null) this.putInFront(content)
  }
}
