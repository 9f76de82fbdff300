/**
 * How much of a growing text is in view. The text itself is always whole elsewhere: copying, searching and
 * screen readers never wait for this.
 */
import { DeadlinePace, LIVE, SMOOTH, TypewriterPace, type Pace } from './pace.ts'
import type { Readable } from './text.ts'

/**
 * - `off`: what arrives is in view at once
 * - `live`: as soon as it can be without jumping
 * - `smooth`: evenly, whatever the arrivals are like, and never more than 0.4 s late
 * - `typewriter`: at a typist's speed, however far behind that is
 */
export type Mode = 'off' | 'live' | 'smooth' | 'typewriter'
export const MODES: readonly Mode[] = ['off', 'live', 'smooth', 'typewriter']

/** Where nothing was chosen, somebody who wants less motion gets none. */
export function modeFor(chosen: Mode | null, wantsLessMotion: boolean): Mode {
  return chosen ?? (wantsLessMotion ? 'off' : 'smooth')
}

/** Where frames come from, and whether anybody sees them. */
export interface Frames {
  /** Draw in the next frame, or in so many milliseconds. The function returned calls it off. */
  readonly request: (run: (now: number) => void, afterMs: number) => () => void
  readonly now: () => number
  readonly isHidden: () => boolean
}

export interface Update {
  /** The text has ended. */
  readonly isWhole?: boolean
  /** What is new was said before, to a connection that broke or a tab that was hidden: it is history. */
  readonly isReplay?: boolean
}

/** What arrived and what is in view, for whoever measures it. Lengths in UTF-16 units. */
export interface Sample {
  readonly now: number
  readonly arrived: number
  readonly shown: number
}

export interface RevealOptions {
  readonly frames: Frames
  readonly mode: Mode
  /** What is on the page already: it does not move. */
  readonly text: Readable
  /** How much of the text is to be drawn, in UTF-16 units; it never ends inside a grapheme. */
  readonly show: (length: number) => void
  readonly onSample?: (sample: Sample) => void
}

/** So long without a frame, nobody draws: a covered window, a page that is busy with something else. */
const FRAMELESS_MS = 1_000

/** Reveals one text, frame by frame, and sleeps while nothing waits. Call `stop` when it is not drawn any more. */
export class Reveal {
  readonly #options: RevealOptions
  #mode: Mode
  #pace: Pace | null
  #text: Readable
  #shown: number
  #isWhole = false
  #callOffFrame: (() => void) | null = null
  #requestedAt = 0
  /** No frame before this. */
  #restsUntil = -Infinity

  constructor(options: RevealOptions) {
    this.#options = options
    this.#mode = options.mode
    this.#text = options.text
    this.#shown = options.text.length
    this.#pace = paceOf(options.mode, options.text)
  }

  /** Whether some of the text has arrived and is not in view yet. */
  get isBehind(): boolean {
    return this.#text.length > this.#shown
  }

  /** A text that does not go on where the last one ended is shown as it is. */
  update(text: Readable, { isWhole = false, isReplay = false }: Update = {}): void {
    const now = this.#options.frames.now()
    const isOther = text.length < this.#text.length
    const isLonger = text.length > this.#text.length
    const ends = isWhole && !this.#isWhole
    this.#text = text
    this.#isWhole = isWhole
    // Before the pace hears of it: a whole answer that nobody sees grow is not worth cutting into graphemes.
    if (isOther || isReplay || this.#isUnseen(now)) return this.all()
    if (isLonger) this.#pace?.arrive(text, now)
    if (ends) this.#pace?.end(now)
    this.#sample(now)
    if (this.isBehind) this.#request(now)
  }

  /** Show all that has arrived. */
  all(): void {
    this.stop()
    this.#pace?.skipTo(this.#text)
    this.#show(this.#text.length, this.#options.frames.now())
  }

  /** The reader does not want to wait: all of it now, and what still comes without a typist. */
  hurry(): void {
    this.setMode(this.#mode === 'typewriter' ? 'smooth' : this.#mode)
    this.all()
  }

  setMode(mode: Mode): void {
    if (mode === this.#mode) return
    this.#mode = mode
    this.#pace = paceOf(mode, this.#text)
    this.all()
  }

  stop(): void {
    this.#callOffFrame?.()
    this.#callOffFrame = null
  }

  #isUnseen(now: number): boolean {
    const isFrameless = this.#callOffFrame !== null && now - this.#requestedAt > FRAMELESS_MS
    return this.#pace === null || isFrameless || this.#options.frames.isHidden()
  }

  #request(now: number): void {
    if (this.#callOffFrame !== null) return
    this.#requestedAt = now
    const afterMs = Math.max(0, this.#restsUntil - now)
    this.#callOffFrame = this.#options.frames.request(this.#step, afterMs)
  }

  readonly #step = (now: number): void => {
    this.#callOffFrame = null
    this.#show(this.#pace?.frame(now) ?? this.#text.length, now)
    this.#restsUntil = now + (this.#pace?.pauseBehind(now) ?? 0)
    if (this.isBehind) this.#request(now)
  }

  #show(length: number, now: number): void {
    if (length === this.#shown) return
    this.#shown = length
    this.#options.show(length)
    this.#sample(now)
  }

  #sample(now: number): void {
    this.#options.onSample?.({ now, arrived: this.#text.length, shown: this.#shown })
  }
}

function paceOf(mode: Mode, shown: Readable): Pace | null {
  switch (mode) {
    case 'off':
      return null
    case 'live':
      return new DeadlinePace(LIVE, shown)
    case 'smooth':
      return new DeadlinePace(SMOOTH, shown)
    case 'typewriter':
      return new TypewriterPace(shown)
  }
}

export function browserFrames(): Frames {
  return {
    request: requestFrame,
    now: () => performance.now(),
    isHidden: () => document.hidden,
  }
}

/**
 * Who can wait is called between two frames: there what is drawn can be scrolled to as well, so that the event
 * of it comes with the frame that shows it and needs none of its own.
 */
function requestFrame(run: (now: number) => void, afterMs: number): () => void {
  // Not the time of the frame, which may be that of one before: the two ways would disagree.
  const draw = (): void => run(performance.now())
  if (afterMs > 0) {
    const timer = setTimeout(draw, afterMs)
    return () => clearTimeout(timer)
  }
  const frame = requestAnimationFrame(draw)
  return () => cancelAnimationFrame(frame)
}
