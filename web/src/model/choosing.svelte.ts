/** How another model is chosen: what is on offer, what is wished for, and what went wrong. */
import { ApiError, type ModelRow, type Models } from '../api.ts'
import type { Switch } from '../stream/wire.ts'

/** The part of the panel that puts a model into the engine. */
export interface Engine {
  readonly switch: Switch | null
  readonly isSwitching: boolean
  models(): Promise<Models>
  switchModel(model: string, now: boolean): Promise<void>
  callOffSwitch(): Promise<void>
}

export class Choosing {
  /** What the server could load; null until it has said so. */
  offer = $state.raw<Models | null>(null)
  problem = $state.raw<ApiError | null>(null)
  picked = $state('')
  typed = $state('')
  /** Answers that are being written are cut, not finished first. */
  isHasty = $state(false)
  readonly #engine: Engine

  constructor(engine: Engine) {
    this.#engine = engine
  }

  /** What is typed is meant, whatever was picked before. */
  get wish(): string {
    return this.typed.trim() || this.picked
  }

  get canSwitch(): boolean {
    return this.wish !== '' && !this.#engine.isSwitching
  }

  get canCallOff(): boolean {
    const stage = this.#engine.switch?.stage
    return stage === 'fetching' || stage === 'waiting'
  }

  rows(isHere: boolean): readonly ModelRow[] {
    return this.offer?.models.filter(({ is_here }) => is_here === isHere) ?? []
  }

  look(): Promise<void> {
    return this.#attempt(async () => void (this.offer = await this.#engine.models()))
  }

  async switch(): Promise<void> {
    if (!this.canSwitch) return
    await this.#attempt(() => this.#engine.switchModel(this.wish, this.isHasty))
  }

  callOff(): Promise<void> {
    return this.#attempt(() => this.#engine.callOffSwitch())
  }

  async #attempt(work: () => Promise<void>): Promise<void> {
    this.problem = null
    try {
      await work()
    } catch (error) {
      if (!(error instanceof ApiError)) throw error
      this.problem = error
    }
  }
}
