/**
 * Turns runs of `*`, `_` and `~~` into emphasis, by the rules of CommonMark with the amendment that Chinese,
 * Japanese and Korean need: beside their characters, punctuation does not keep a run from opening or
 * closing. Those languages put no spaces between words, and `**\u6ce8\u610f\uff1a**\u6b63\u6587` would stay as it is
 * written (commonmark-spec discussion 650).
 */
import { kindOf } from './characters.ts'
import type { Inline } from './tree.ts'

/**
 * An opener has effect for so many characters and no further. No one emphasizes this much, and what is
 * further behind need not be read again when text arrives.
 */
export const REACH = 2_048

/** What is open for longer than this is not taken for emphasis before its end has arrived. */
export const TRUST = 400

export interface Run {
  readonly type: 'run'
  readonly mark: string
  readonly length: number
  readonly position: number
  readonly canOpen: boolean
  readonly canClose: boolean
}

export type Token = Inline | Run

export function runOf(
  mark: string,
  length: number,
  position: number,
  before: string,
  after: string,
): Run {
  const isLeft = flanks(after, before)
  const isRight = flanks(before, after)
  const isInWord = mark === '_' && isLeft && isRight
  const isLone = mark === '~' && length !== 2
  return {
    type: 'run',
    mark,
    length,
    position,
    canOpen: isLeft && !isLone && (!isInWord || isPunctuation(before)),
    canClose: isRight && !isLone && (!isInWord || isPunctuation(after)),
  }
}

function flanks(inner: string, outer: string): boolean {
  const kind = kindOf(inner)
  if (kind === 'space') return false
  return kind !== 'punctuation' || kindOf(outer) !== 'other'
}

function isPunctuation(character: string): boolean {
  const kind = kindOf(character)
  return kind === 'punctuation' || kind === 'east-asian-punctuation'
}

interface Frame {
  readonly run: Run
  left: number
  nodes: Inline[]
}

/** Takes tokens in order. What is open at any time is a stack of frames, the innermost last. */
export class Emphasis {
  #nodes: Inline[] = []
  readonly #frames: Frame[] = []

  /** Whether nothing that is still to come can change what has been taken. */
  get isSettled(): boolean {
    return this.#frames.length === 0
  }

  take(token: Token): void {
    if (typeof token === 'string' || token.type !== 'run') append(this.#innermost, token)
    else this.#takeRun(token)
  }

  /** Gives up what was opened so far back that nothing from `position` on can close it. */
  forget(position: number): void {
    this.#giveUp(position - REACH)
  }

  /** All nodes; what is open is not emphasis. */
  end(): Inline[] {
    this.#collapse(0)
    return this.#nodes.slice()
  }

  /** All nodes, as if what was opened lately were closed at `position`, where the text ends for now. */
  endProvisionally(position: number): Inline[] {
    this.#giveUp(position - TRUST)
    for (let frame = this.#frames.pop(); frame; frame = this.#frames.pop())
      if (frame.nodes.length > 0) append(this.#innermost, wrapAll(frame))
    return this.#nodes
  }

  get #innermost(): Inline[] {
    return this.#frames.at(-1)?.nodes ?? this.#nodes
  }

  #takeRun(run: Run): void {
    let left = run.length
    while (left > 0 && run.canClose) {
      const depth = this.#frames.findLastIndex((frame) => isPair(frame.run, run))
      const frame = this.#frames[depth]
      if (frame === undefined) break
      this.#collapse(depth + 1)
      const used = frame.left >= 2 && left >= 2 ? 2 : 1
      frame.nodes = [wrap(run.mark, used, frame.nodes)]
      frame.left -= used
      left -= used
      if (frame.left === 0) this.#collapse(depth)
    }
    if (left === 0) return
    if (run.canOpen) this.#frames.push({ run, left, nodes: [] })
    else append(this.#innermost, run.mark.repeat(left))
  }

  /** What was opened before `position` was no emphasis after all. */
  #giveUp(position: number): void {
    const kept = this.#frames.findIndex(({ run }) => run.position >= position)
    const lost = this.#frames.splice(0, kept < 0 ? this.#frames.length : kept)
    for (const frame of lost) spill(frame, this.#nodes)
  }

  /** Frames from this depth on were none. */
  #collapse(depth: number): void {
    for (const frame of this.#frames.splice(depth)) spill(frame, this.#innermost)
  }
}

function isPair(opener: Run, closer: Run): boolean {
  if (opener.mark !== closer.mark || closer.position - opener.position > REACH) return false
  const isEither = opener.canClose || closer.canOpen
  const isUneven = opener.length % 3 !== 0 || closer.length % 3 !== 0
  return !(isEither && isUneven && (opener.length + closer.length) % 3 === 0)
}

/** An array that has grown has room for more; a copy has not. */
function wrap(mark: string, used: number, nodes: readonly Inline[]): Inline {
  const children = nodes.slice()
  if (mark === '~') return { type: 'strike', children }
  return { type: used === 2 ? 'strong' : 'emphasis', children }
}

function wrapAll({ run, left, nodes }: Frame): Inline {
  if (left === 1) return wrap(run.mark, 1, nodes)
  const strong = wrap(run.mark, 2, nodes)
  return left === 2 ? strong : wrap(run.mark, 1, [strong])
}

/** Adds the frame as text to the nodes around it. */
function spill({ run, left, nodes }: Frame, outer: Inline[]): void {
  append(outer, run.mark.repeat(left))
  for (const node of nodes) append(outer, node)
}

/** Text that follows text becomes one text. */
export function append<T>(nodes: (T | string)[], node: T | string): void {
  const last = nodes.at(-1)
  if (node === '') return
  if (typeof node === 'string' && typeof last === 'string') nodes[nodes.length - 1] = last + node
  else nodes.push(node)
}
