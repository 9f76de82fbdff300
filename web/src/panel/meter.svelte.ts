/**
 * How full the context is: what a question would take, counted by the server when the reader pauses, estimated
 * in between. Says which messages the model does not see for want of room.
 */
import { ApiError, type Api, type ContextUse } from '../api.ts'
import { growingText } from '../stream/fold.ts'
import type { EngineStatus, Message, Model, Settings } from '../stream/wire.ts'
import type { World } from '../stream/world.ts'
import { estimateGrowing, estimateTokens } from './estimate.ts'

/** What the meter looks at. */
export interface Measured {
  readonly chat: string | null
  readonly messages: readonly Message[]
  readonly draft: string
  readonly settings: Settings
  readonly isBusy: boolean
  readonly engine: (EngineStatus & Partial<Model>) | null
}

/** `near` warns before anything is lost; `too_long` is a question that does not fit by itself. */
export type Level = 'calm' | 'near' | 'left_out' | 'too_long'

interface Count {
  readonly of: string
  readonly draft: string
  /** Null where the server refuses the question as too long. */
  readonly use: ContextUse | null
}

const PAUSE_MS = 500
/** The room that the server keeps for an answer, and the most of the context that it keeps for one. */
const ROOM_TOKENS = 1_024
const ROOM_SHARE = 0.25
const NEAR = 0.85

export class Meter {
  readonly #api: Api
  readonly #world: World
  readonly #measured: Measured
  #count = $state.raw<Count | null>(null)

  constructor(api: Api, world: World, measured: Measured) {
    this.#api = api
    this.#world = world
    this.#measured = measured
  }

  readonly size = $derived.by(
    () => this.#measured.engine?.context_length ?? this.#counted?.use?.context_length ?? null,
  )

  readonly tokens = $derived.by(() => {
    const draft = estimateTokens(this.#measured.draft)
    const counted = this.#counted
    if (counted?.use) return Math.max(0, counted.use.tokens + draft - estimateTokens(counted.draft))
    return tokensOf(this.#measured) + draft
  })

  /** Whether the server has counted just this. */
  readonly isCounted = $derived.by(() => this.#counted?.draft === this.#measured.draft.trim())

  readonly share = $derived(this.size === null ? 0 : this.tokens / this.size)

  /** How many of the oldest messages the model is not told. */
  readonly leftOut = $derived.by(
    () => this.#counted?.use?.left_out ?? leftOutOf(this.#measured.messages),
  )

  readonly level: Level = $derived.by(() => {
    if (this.size === null) return 'calm'
    if (this.#isRefused || this.tokens >= this.size) return 'too_long'
    if (this.leftOut > 0) return 'left_out'
    const room = Math.min(
      this.#measured.settings.sampling.max_tokens ?? ROOM_TOKENS,
      this.size * ROOM_SHARE,
    )
    return this.tokens > NEAR * (this.size - room) ? 'near' : 'calm'
  })

  /** Count what there is now, after a pause. Returns how to call it off. Everything that matters is read here. */
  follow(): () => void {
    const { chat, draft, messages, isBusy, engine } = this.#measured
    const last = messages.at(-1)
    const isCountable = chat !== null && last && !isBusy && engine?.phase === 'ready'
    if (!isCountable) return () => {}
    const of = identity(this.#measured)
    let isOff = false
    const callOff = this.#world.later(() => {
      void this.#ask(chat, draft.trim(), last.id).then((use) => {
        if (!isOff && use !== undefined) this.#count = { of, draft: draft.trim(), use }
      })
    }, PAUSE_MS)
    return () => {
      isOff = true
      callOff()
    }
  }

  /** Undefined where nobody can count now. */
  async #ask(chat: string, draft: string, last: string): Promise<ContextUse | null | undefined> {
    try {
      return await this.#api.context(chat, draft, last)
    } catch (error) {
      if (!(error instanceof ApiError)) throw error
      return error.code === 'prompt_too_long' ? null : undefined
    }
  }

  get #counted(): Count | null {
    return this.#count?.of === identity(this.#measured) ? this.#count : null
  }

  get #isRefused(): boolean {
    return this.isCounted && this.#counted?.use === null
  }
}

/** What a count is good for, the draft apart. */
function identity({ chat, messages, settings }: Measured): string {
  const last = messages.at(-1)
  return JSON.stringify([chat, last?.id, last?.run, last?.state, settings])
}

/** By the last answer's own account, and for what is not in it by estimate. */
function tokensOf({ messages, settings }: Measured): number {
  const at = messages.findLastIndex(({ usage }) => usage !== null)
  const usage = messages[at]?.usage
  const known = usage
    ? usage.prompt_tokens + usage.completion_tokens
    : estimateTokens(settings.system ?? '')
  return messages.slice(at + 1).reduce((sum, message) => sum + estimateMessage(message), known)
}

/** Without thinking, which the model is not told again. */
function estimateMessage({ parts }: Message): number {
  const texts = parts.filter(({ type }) => type === 'text')
  return texts.reduce((sum, part) => sum + estimateGrowing(growingText(part)), 0)
}

/** An answer that waits has not been told how much of the conversation fits. */
function leftOutOf(messages: readonly Message[]): number {
  const last = messages.findLast(({ role, state }) => role === 'assistant' && state !== 'queued')
  return last?.left_out ?? 0
}
