/** What stands around the conversation: its settings, its context, the model that answers, the shortcuts. */
import { createContext } from 'svelte'
import { ApiError, type Api, type Models } from '../api.ts'
import { ownBuild } from '../build.ts'
import type { Conversation } from '../conversation.svelte.ts'
import { Shortcuts } from '../shortcuts/shortcuts.svelte.ts'
import type { Message, Model, Switch } from '../stream/wire.ts'
import type { World } from '../stream/world.ts'
import { Meter } from './meter.svelte.ts'
import { Presets } from './presets.svelte.ts'

export type Dialog = 'settings' | 'model' | 'shortcuts'

export class Panel {
  dialog = $state.raw<Dialog | null>(null)
  /** What was in the engine when it was last ready. */
  model = $state.raw<Model | null>(null)
  /** Whether whoever is here may choose another model. */
  isAdmin = $state.raw(false)
  readonly conversation: Conversation
  readonly meter: Meter
  readonly presets = new Presets()
  readonly shortcuts = new Shortcuts()
  readonly #api: Api
  readonly #build = ownBuild()
  #lacksPart = $state.raw(false)

  constructor(api: Api, world: World, conversation: Conversation) {
    this.#api = api
    this.conversation = conversation
    this.meter = new Meter(api, world, conversation)
  }

  /** The server has another page than this one, or a part of this one is not there any more. */
  get isOutdated(): boolean {
    const { build } = this.conversation
    return this.#lacksPart || (this.#build !== null && build !== null && build !== this.#build)
  }

  /** Another model is on its way, or could not be had. */
  get switch(): Switch | null {
    return this.conversation.engine?.switch ?? null
  }

  get isSwitching(): boolean {
    return this.switch !== null && this.switch.stage !== 'failed'
  }

  notePartMissing(): void {
    this.#lacksPart = true
  }

  noteModel(): void {
    const { engine } = this.conversation
    if (engine?.model !== undefined) this.model = engine as Model
  }

  async noteRole(): Promise<void> {
    try {
      this.isAdmin = await this.#api.isAdmin()
    } catch (error) {
      if (!(error instanceof ApiError)) throw error
      this.isAdmin = false
    }
  }

  /** Those that the server could load. Throws an `ApiError`. */
  models(): Promise<Models> {
    return this.#api.models()
  }

  /** Answers that are being written are finished first, or cut with `now`. Throws an `ApiError`. */
  async switchModel(model: string, now: boolean): Promise<void> {
    await this.#api.switchModel(model, now)
  }

  /** The present model stays. Throws an `ApiError`. */
  callOffSwitch(): Promise<void> {
    return this.#api.callOffSwitch()
  }

  /** An answer with everything that it was made with. Throws an `ApiError`. */
  message(id: string): Promise<Message> {
    return this.#api.message(id)
  }
}

export const [panelOf, setPanel] = createContext<Panel>()
