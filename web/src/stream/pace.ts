/**
 * How fast a text that has arrived comes into view. Neither pace has a clock: both are told the time.
 *
 * **The deadline rule.** What arrives at `t` is in view at `t + D`, and D is what bridges the gaps between
 * arrivals, so that text flows where the connection stutters. Each frame shows as much as the smallest even
 * speed that meets every deadline asks for. Pauses behind punctuation and the slower pace of Han are costs
 * inside that window: they shape the flow and add no delay.
 *
 * **The typewriter.** The same queue, with costs in milliseconds and nothing but them: it may fall behind.
 */
import { GraphemeQueue, type Costs } from './graphemes.ts'
import type { Readable } from './text.ts'

export interface Pace {
  /** The text as it is at `now`, longer than before. */
  readonly arrive: (text: Readable, now: number) => void
  /** Nothing more will come. */
  readonly end: (now: number) => void
  /** The length, in UTF-16 units, that is in view from the frame at `now` on. */
  readonly frame: (now: number) => number
  /** How many milliseconds the next drawing is to be behind the one at `now`; 0 for the next frame. */
  readonly pauseBehind: (now: number) => number
  /** All of `text` is in view. */
  readonly skipTo: (text: Readable) => void
  readonly isWaiting: boolean
}

export interface Window {
  /** D in gaps between arrivals: above 2 nothing becomes more even, at 1 one late arrival stops the flow. */
  readonly gaps: number
  /** No lag beyond this, whatever the arrivals do. */
  readonly longestMs: number
  /** Whether every other frame may be left out where nobody sees the difference. */
  readonly mayPause: boolean
}

export const SMOOTH: Window = { gaps: 2, longestMs: 400, mayPause: true }
/** As soon as it can be without jumping: a gap is hardly bridged. */
export const LIVE: Window = { gaps: 1.1, longestMs: 150, mayPause: false }

/** A lag that no reader notices may buy evenness; beyond it D is only what bridges the gap. */
const UNNOTICED_MS = 100
/** What bridges a gap: the gap and a quarter for the next one, which is never quite the same. */
const BRIDGE = 1.25
/** Two frames: less is what every frame does anyway. */
const SHORTEST_MS = 32
/** Gaps are forgotten over this time, so that one stall does not slow the rest of the answer. */
const GAP_MEMORY_MS = 1_500
/** Before anything is known: 25 arrivals a second. */
const ASSUMED_GAP_MS = 40
/** A lump takes time by its size, or a frame would show more of it than an eye can follow. */
const FASTEST_GRAPHEMES_PER_MS = 1
/** How long the last words take when the answer has ended. */
const END_MS = 200

const FRAME_MS = 1000 / 60
/** Faster than 240 Hz there is no screen; slower than 20 Hz it was a pause, and no rhythm to plan with. */
const SHORTEST_FRAME_MS = 1000 / 240
const LONGEST_FRAME_MS = 50

/**
 * A drawing costs the page about the same however little is new in it. Where each frame brings several
 * graphemes, every other one of a screen of 60 Hz is left out: two frames, but for what a timer is late.
 */
const PAUSE_MS = 32
/** Slower than this they come one by one, each in its frame. */
const FLOWING_PER_MS = 0.2
/** In frames. */
const FLOW_MEMORY = 24
/** Graphemes. More than this at once would be seen to jump. */
const MOST_AT_ONCE = 24

const COSTS: Costs = { narrow: 1, wide: 2, pauseAfterComma: 2, pauseAfterSentence: 5 }
const TYPEWRITER_MS: Costs = {
  narrow: 30,
  wide: 50,
  pauseAfterComma: 100,
  pauseAfterSentence: 100,
}

interface Deadline {
  readonly cost: number
  readonly due: number
}

export class DeadlinePace implements Pace {
  readonly #window: Window
  readonly #queue = new GraphemeQueue(COSTS)
  /** Due times and costs both rise: a deadline behind a sooner one asks for nothing. */
  #deadlines: Deadline[] = []
  #reached = 0
  #shown = 0
  #peakGap = ASSUMED_GAP_MS
  #lastArrival: number | null = null
  #frameMs = FRAME_MS
  #lastFrame: number | null = null
  /** Graphemes, of the last frames. */
  #perMs = 0
  /** Whether there was to be a pause before the next frame. */
  #hasPaused = false

  constructor(window: Window, shown: Readable) {
    this.#window = window
    this.skipTo(shown)
  }

  get isWaiting(): boolean {
    return this.#queue.waiting > 0
  }

  arrive(text: Readable, now: number): void {
    const before = this.#queue.waiting
    this.#queue.extend(text)
    this.#noteGap(now)
    this.#promise(now + this.#windowMs(this.#queue.waiting - before))
  }

  end(now: number): void {
    const latest = now + END_MS
    const isLate = this.#deadlines.some(({ due }) => due > latest)
    this.#deadlines = this.#deadlines.filter(({ due }) => due <= latest)
    if (isLate) this.#promise(latest)
  }

  frame(now: number): number {
    const elapsed = this.#noteFrame(now)
    // The first character of all shows that there is an answer: it waits for nothing.
    const atLeast = this.#reached === 0 ? (this.#queue.costOf(1) ?? 0) : 0
    // What has come in the pause and is too much for one frame is in two that follow each other.
    const atMost = this.#hasPaused ? (this.#queue.costOf(MOST_AT_ONCE) ?? Infinity) : Infinity
    const reached = this.#reached + this.#step(now, elapsed)
    this.#reached = Math.min(atMost, Math.max(atLeast, reached))
    const before = this.#queue.waiting
    this.#shown = this.#queue.take(this.#reached) ?? this.#shown
    this.#perMs += ((before - this.#queue.waiting) / elapsed - this.#perMs) / FLOW_MEMORY
    if (!this.isWaiting) this.#rest()
    return this.#shown
  }

  pauseBehind(now: number): number {
    this.#hasPaused = false
    if (!this.#window.mayPause || this.#perMs < FLOWING_PER_MS) return 0
    const elapsed = 2 * FRAME_MS
    const reached = this.#reached + this.#step(now + elapsed, elapsed)
    const isMuch = reached >= (this.#queue.costOf(MOST_AT_ONCE) ?? Infinity)
    this.#hasPaused = !isMuch && this.#perMs * elapsed < MOST_AT_ONCE
    return this.#hasPaused ? PAUSE_MS : 0
  }

  skipTo(text: Readable): void {
    this.#queue.skipTo(text)
    this.#shown = text.length
    this.#deadlines = []
    this.#rest()
  }

  /** What the most pressing deadline asks of this frame, if all frames up to it go at one speed. */
  #step(now: number, elapsed: number): number {
    let step = 0
    let met = 0
    for (const { cost, due } of this.#deadlines) {
      // The frame behind this one may come too late for what is due before it.
      const left = Math.max(0, due - now - this.#frameMs)
      step = Math.max(step, ((cost - this.#reached) * elapsed) / (elapsed + left))
      if (cost <= this.#reached) met += 1
    }
    if (met > 0) this.#deadlines.splice(0, met)
    return step
  }

  #promise(due: number): void {
    while ((this.#deadlines.at(-1)?.due ?? -Infinity) >= due) this.#deadlines.pop()
    this.#deadlines.push({ cost: this.#queue.total, due })
  }

  #windowMs(count: number): number {
    const { gaps, longestMs } = this.#window
    const unnoticed = UNNOTICED_MS - this.#frameMs
    const even = Math.min(gaps * this.#peakGap, Math.max(unnoticed, BRIDGE * this.#peakGap))
    const wanted = Math.max(even + this.#frameMs, count / FASTEST_GRAPHEMES_PER_MS)
    return Math.min(longestMs, Math.max(SHORTEST_MS, wanted))
  }

  #noteGap(now: number): void {
    if (this.#lastArrival !== null) {
      const gap = Math.min(now - this.#lastArrival, this.#window.longestMs)
      this.#peakGap = Math.max(gap, this.#peakGap * Math.exp(-gap / GAP_MEMORY_MS))
    }
    this.#lastArrival = now
  }

  /** Since the last frame. Frames are expected as far apart as the slower ones of late. */
  #noteFrame(now: number): number {
    const elapsed = this.#lastFrame === null ? this.#frameMs : now - this.#lastFrame
    const gap = Math.min(LONGEST_FRAME_MS, Math.max(SHORTEST_FRAME_MS, elapsed))
    this.#frameMs = Math.max(gap, this.#frameMs + (gap - this.#frameMs) / 8)
    this.#lastFrame = now
    return Math.max(elapsed, SHORTEST_FRAME_MS)
  }

  /** Nothing waits: the pace starts anew from here, and the pause until more comes is no frame. */
  #rest(): void {
    this.#reached = this.#queue.total
    this.#lastFrame = null
  }
}

export class TypewriterPace implements Pace {
  readonly #queue = new GraphemeQueue(TYPEWRITER_MS)
  #reached = 0
  #shown = 0
  #lastFrame: number | null = null

  constructor(shown: Readable) {
    this.skipTo(shown)
  }

  get isWaiting(): boolean {
    return this.#queue.waiting > 0
  }

  arrive(text: Readable): void {
    this.#queue.extend(text)
  }

  /** It types on: whoever does not want to wait has a click for it. */
  end(): void {}

  pauseBehind(): number {
    return 0
  }

  frame(now: number): number {
    this.#reached += this.#lastFrame === null ? TYPEWRITER_MS.narrow : now - this.#lastFrame
    this.#lastFrame = now
    this.#shown = this.#queue.take(this.#reached) ?? this.#shown
    if (!this.isWaiting) this.#rest()
    return this.#shown
  }

  skipTo(text: Readable): void {
    this.#queue.skipTo(text)
    this.#shown = text.length
    this.#rest()
  }

  #rest(): void {
    this.#reached = this.#queue.total
    this.#lastFrame = null
  }
}
