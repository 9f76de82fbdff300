/** A chat's settings while they are being changed: as they are typed, and what is wrong with that. */
import type { Sampling, Settings } from '../stream/wire.ts'
import {
  LONGEST_SYSTEM,
  NAMES,
  readNumber,
  readStops,
  stopsProblem,
  writeStops,
  type NumberName,
  type NumberProblem,
  type StopsProblem,
} from './parameters.ts'

type Texts = Readonly<Record<NumberName, string>>

export interface Problems {
  readonly system: boolean
  readonly stop: StopsProblem | null
  readonly numbers: Readonly<Partial<Record<NumberName, NumberProblem>>>
}

export class SettingsForm {
  system = $state('')
  stops = $state('')
  #texts = $state.raw<Texts>(textsOf({}))

  constructor(settings: Settings) {
    this.fill(settings)
  }

  readonly problems = $derived.by<Problems>(() => ({
    system: this.system.length > LONGEST_SYSTEM,
    stop: stopsProblem(readStops(this.stops)),
    numbers: this.#numberProblems(),
  }))

  readonly isRight = $derived(
    !this.problems.system &&
      this.problems.stop === null &&
      Object.keys(this.problems.numbers).length === 0,
  )

  fill({ system, sampling }: Settings): void {
    this.system = system ?? ''
    this.stops = writeStops(sampling.stop ?? [])
    this.#texts = textsOf(sampling)
  }

  text(name: NumberName): string {
    return this.#texts[name]
  }

  type(name: NumberName, text: string): void {
    this.#texts = { ...this.#texts, [name]: text }
  }

  /** What is typed; what is not right counts as not said. */
  get settings(): Settings {
    const stop = readStops(this.stops)
    const numbers = NAMES.flatMap((name) => {
      const read = readNumber(name, this.#texts[name])
      return 'value' in read && read.value !== null ? [[name, read.value]] : []
    })
    const sampling = { ...Object.fromEntries(numbers), ...(stop.length > 0 ? { stop } : {}) }
    return { system: this.system.trim() === '' ? null : this.system, sampling }
  }

  #numberProblems(): Problems['numbers'] {
    const found = NAMES.flatMap((name) => {
      const read = readNumber(name, this.#texts[name])
      return 'problem' in read ? [[name, read.problem]] : []
    })
    return Object.fromEntries(found)
  }
}

function textsOf(sampling: Sampling): Texts {
  return Object.fromEntries(NAMES.map((name) => [name, sampling[name]?.toString() ?? ''])) as Texts
}
