/**
 * How much of a growing text is on the page. The text itself is always whole elsewhere: this is a view of
 * it that moves evenly while the text comes in lumps.
 *
 * Whatever has arrived is visible `WINDOW_MS` later: each frame shows the share of what is left that the
 * frame takes of the time left. So the view neither falls behind nor ends with a long tail.
 */
const WINDOW_MS = 120

export interface View {
  /** UTF-16 units on the page. */
  readonly shown: number
  /** When all that has arrived by now is on the page. */
  readonly due: number
  readonly at: number
}

export interface Frames {
  readonly request: (run: (now: number) => void) => number
  readonly cancel: (frame: number) => void
  /** True where nothing should move: nobody looks, or motion is not wanted. */
  readonly isStill: () => boolean
}

/** Text has arrived: everything is due one window from now, unless it is sooner already. */
export function arrive(view: View, length: number, now: number): View {
  const isIdle = view.shown >= length || view.due <= view.at
  return isIdle ? { ...view, due: now + WINDOW_MS, at: now } : view
}

/** One frame later. Only ever grows, and never ends inside what a reader sees as one character. */
export function advance(view: View, text: string, now: number): View {
  const left = text.length - view.shown
  const total = view.due - view.at
  // A frame is stamped with its start, which may lie before the arrival that it shows.
  const share = total <= 0 ? 1 : Math.min(1, Math.max(0, (now - view.at) / total))
  const target = view.shown + Math.ceil(left * share)
  const due = share === 1 ? now + WINDOW_MS : view.due
  return { shown: boundary(text, view.shown, target), due, at: now }
}

const graphemes = 'Segmenter' in Intl ? new Intl.Segmenter() : null

/** Segmenting costs time per character, and a frame shows few: look no further than this behind the target. */
const LONGEST_GRAPHEME = 64

/** The first end of a character at or behind `target`, counting from the boundary `from`. */
export function boundary(text: string, from: number, target: number): number {
  if (target >= text.length) return text.length
  const near = text.slice(from, target + LONGEST_GRAPHEME)
  if (graphemes === null) return isLowSurrogate(text, target) ? target + 1 : target
  for (const { index, segment } of graphemes.segment(near)) {
    const end = from + index + segment.length
    if (end >= target) return end
  }
  return target
}

function isLowSurrogate(text: string, index: number): boolean {
  return (text.charCodeAt(index) & 0xfc00) === 0xdc00
}

/** Reveals one text, frame by frame, and sleeps while nothing is left to show. */
export class Reveal {
  readonly #show: (shown: number) => void
  readonly #frames: Frames
  #view: View
  #text = ''
  #frame: number | null = null

  /** `shown` units are on the page already and do not move. */
  constructor(frames: Frames, shown: number, show: (shown: number) => void) {
    this.#frames = frames
    this.#show = show
    this.#view = { shown, due: 0, at: 0 }
  }

  /** The text as it is now. One that is not longer, or that nobody sees grow, is shown at once. */
  update(text: string, now: number): void {
    this.#text = text
    if (text.length <= this.#view.shown || this.#frames.isStill()) return this.all()
    this.#view = arrive(this.#view, text.length, now)
    this.#frame ??= this.#frames.request(this.#step)
  }

  all(): void {
    this.stop()
    this.#view = { shown: this.#text.length, due: 0, at: 0 }
    this.#show(this.#text.length)
  }

  stop(): void {
    if (this.#frame !== null) this.#frames.cancel(this.#frame)
    this.#frame = null
  }

  readonly #step = (now: number): void => {
    this.#view = advance(this.#view, this.#text, now)
    this.#show(this.#view.shown)
    this.#frame = this.#view.shown < this.#text.length ? this.#frames.request(this.#step) : null
  }
}

export function browserFrames(): Frames {
  const stillness = matchMedia('(prefers-reduced-motion: reduce)')
  return {
    request: (run) => requestAnimationFrame(run),
    cancel: (frame) => cancelAnimationFrame(frame),
    isStill: () => document.hidden || stillness.matches,
  }
}
