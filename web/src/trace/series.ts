/** What `?trace` draws: how much of a text had arrived and was in view, over the last seconds. Pure. */
import type { Sample } from '../stream/reveal.ts'

export const WINDOW_MS = 10_000

export interface Speed {
  readonly characters: number
  readonly perSecond: number
}

export class Series {
  #samples: Sample[] = []
  #first: Sample | null = null
  /** What has arrived and is not in view yet: when, and up to where. */
  #waiting: { readonly at: number; readonly upTo: number }[] = []
  #arrived = 0
  #longestLag = 0

  /** A text that is shorter than before is another one. */
  add(sample: Sample): void {
    if (sample.arrived < this.#arrived) this.clear()
    this.#first ??= sample
    if (sample.arrived > this.#arrived) {
      this.#waiting.push({ at: sample.now, upTo: sample.arrived })
      this.#arrived = sample.arrived
    }
    // What comes into view now has waited until now.
    if (sample.shown > (this.#samples.at(-1)?.shown ?? 0)) this.#note(this.lagAt(sample.now))
    this.#waiting = this.#waiting.filter(({ upTo }) => upTo > sample.shown)
    this.#samples.push(sample)
    const since = sample.now - WINDOW_MS
    while ((this.#samples[1]?.now ?? Infinity) < since) this.#samples.shift()
  }

  clear(): void {
    this.#samples = []
    this.#waiting = []
    this.#first = null
    this.#arrived = 0
    this.#longestLag = 0
  }

  get samples(): readonly Sample[] {
    return this.#samples
  }

  /** For how long the next character to come into view has been waiting, in milliseconds. */
  lagAt(now: number): number {
    const next = this.#waiting[0]
    return next === undefined ? 0 : Math.max(0, now - next.at)
  }

  get longestLag(): number {
    return this.#longestLag
  }

  /** What has arrived so far, and how fast since the first of it. */
  get speed(): Speed {
    const last = this.#samples.at(-1)
    const seconds = last && this.#first ? (last.now - this.#first.now) / 1_000 : 0
    const since = this.#arrived - (this.#first?.arrived ?? 0)
    return { characters: this.#arrived, perSecond: seconds > 0 ? since / seconds : 0 }
  }

  #note(lag: number): void {
    this.#longestLag = Math.max(this.#longestLag, lag)
  }
}

/** The points of a polyline in a box, newest at its right end and the longest text at its top. */
export function polyline(
  samples: readonly Sample[],
  value: 'arrived' | 'shown',
  box: { readonly width: number; readonly height: number },
): string {
  const last = samples.at(-1)
  const first = samples[0]
  if (!last || !first) return ''
  const floor = first.shown
  const scale = box.height / Math.max(1, last.arrived - floor)
  return samples
    .map((sample) => {
      const x = box.width * (1 - (last.now - sample.now) / WINDOW_MS)
      const y = box.height - Math.max(0, sample[value] - floor) * scale
      return `${Math.max(0, x).toFixed(1)},${y.toFixed(1)}`
    })
    .join(' ')
}
