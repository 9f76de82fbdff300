/** The text of a paragraph, a heading or a cell, and its reading. */
import { characterBefore } from './characters.ts'
import { pushAll, type Chunks } from './chunks.ts'
import { REACH } from './emphasis.ts'
import { LEAST_TO_SETTLE, readInline, type Mode, type Reading } from './inline.ts'
import type { Definitions } from './references.ts'
import type { Inline, Prose } from './tree.ts'

/** What references are resolved with, and whether more definitions may come. */
export interface Knowledge {
  readonly definitions: Definitions
  readonly isTrusting: boolean
}

interface Settled {
  readonly parts: Chunks<Inline>
  readonly labels: ReadonlySet<string>
  readonly isProvisional: boolean
  /** The character before the rest. */
  readonly before: string
}

/** Where nothing becomes quiet for so long, what is open is given up. */
const WINDOW = 2 * REACH

const NOTHING: Settled = { parts: [], labels: new Set(), isProvisional: false, before: '' }

/**
 * Text that grows. What is settled of it is read once, so that a step costs no more in a text that goes on
 * for ever than in a short one. Growing makes a new value; the old one stays as it was.
 */
export class GrowingProse {
  readonly source: string
  readonly #knowledge: Knowledge
  readonly #settled: Settled
  readonly #rest: string
  /** What this was grown by last: a line that arrives in pieces begins with it the next time. */
  #grown: {
    readonly origin: string
    readonly length: number
    readonly prose: GrowingProse
  } | null = null

  private constructor(source: string, knowledge: Knowledge, settled: Settled, rest: string) {
    this.source = source
    this.#knowledge = knowledge
    this.#settled = settled
    this.#rest = rest
  }

  static empty(knowledge: Knowledge): GrowingProse {
    return new GrowingProse('', knowledge, NOTHING, '')
  }

  static of(text: string, knowledge: Knowledge): GrowingProse {
    return GrowingProse.empty(knowledge).#grow(text)
  }

  /**
   * A text of the same origin must begin with the one that came before it: only what is new is read then.
   * (Comparing the two would take longer than anything else does.)
   */
  grow(text: string, origin: string | null): GrowingProse {
    const known = origin !== null && this.#grown?.origin === origin ? this.#grown : null
    const prose = known ? known.prose.#grow(text.slice(known.length)) : this.#grow(text)
    if (origin !== null) this.#grown = { origin, length: text.length, prose }
    return prose
  }

  read(mode: Mode): Prose {
    const { parts, labels, isProvisional } = add(this.#settled, this.#read(this.#rest, mode), '')
    const { source } = this
    return { parts, unresolved: labels.size > 0 ? { source, labels, isProvisional } : null }
  }

  #grow(text: string): GrowingProse {
    let settled = this.#settled
    let rest = this.#rest + text
    while (rest.length >= LEAST_TO_SETTLE) {
      const reading = this.#settle(rest, settled.before)
      if (reading.length === 0) break
      settled = add(settled, reading, characterBefore(rest, reading.length))
      rest = rest.slice(reading.length)
    }
    return new GrowingProse(this.source + text, this.#knowledge, settled, rest)
  }

  #settle(rest: string, before: string): Reading {
    const known = rest.slice(0, WINDOW)
    const reading = this.#read(known, 'settling', before)
    const isStuck = reading.length === 0 && rest.length > WINDOW
    return isStuck ? this.#read(withoutHalf(known), 'whole', before) : reading
  }

  #read(text: string, mode: Mode, before = this.#settled.before): Reading {
    return readInline(text, { ...this.#knowledge, mode, before })
  }
}

/** Without a surrogate pair that is cut in half, and without an escape or a break that is. */
function withoutHalf(text: string): string {
  return text.replace(/[ \\\ud800-\udbff]+$/, '') || text
}

function add(settled: Settled, reading: Reading, before: string): Settled {
  return {
    parts: pushAll(settled.parts, reading.nodes),
    labels: new Set([...settled.labels, ...reading.labels]),
    isProvisional: settled.isProvisional || reading.isProvisional,
    before,
  }
}
