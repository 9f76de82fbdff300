/** Arrivals to reveal, made up or recorded, and what the reader sees of them, by a virtual clock. */
import { readdirSync, readFileSync } from 'node:fs'
import { READ_EVERY_MS } from './line.ts'
import { Reveal, type Frames, type Mode } from './reveal.ts'

/** When, in milliseconds, and what. */
export type Arrival = readonly [at: number, text: string]

export interface Trace {
  readonly name: string
  readonly arrivals: readonly Arrival[]
}

/** A frame clock: at which times frames come. */
export type Clock = (frame: number) => number

/** Repeats exactly for a seed (mulberry32). */
export function chance(seed: number): () => number {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}

const ENGLISH =
  'The river keeps its own time. Nothing is lost, nothing is said twice; a token, once seen, stays seen. '
const CHINESE =
  '墨水在纸上慢慢散开。「流式」是说：一个字一个字地来，不丢、不重。价格为一千二百元，比昨天便宜！'

/** Tokens as vocabularies have them: words with their blank, one or two Han characters. */
const LONGEST_TOKEN = { en: 6, zh: 2 } as const

/** Tokens of up to so many characters. */
export function tokens(
  language: 'en' | 'zh',
  count: number,
  random: () => number,
  longest: number = LONGEST_TOKEN[language],
): string[] {
  const text = (language === 'en' ? ENGLISH : CHINESE).repeat(Math.ceil((count * 4) / 40) + 1)
  const made: string[] = []
  for (let at = 0; made.length < count;) {
    const length = 1 + Math.floor(random() * longest)
    made.push(text.slice(at, at + length))
    at += length
  }
  return made
}

/** `rate` tokens a second, each up to a quarter of a gap early or late. */
export function steady(rate: number, language: 'en' | 'zh', seconds: number, seed = 1): Trace {
  const random = chance(seed)
  const gap = 1000 / rate
  const arrivals = tokens(language, rate * seconds, random).map((text, i): Arrival => [
    (i + (random() - 0.5) / 2) * gap + gap,
    text,
  ])
  return { name: `${rate} tok/s ${language}`, arrivals: coalesced(arrivals) }
}

/** What the scripted engine sends at 200 tokens a second: pieces of one to four characters. */
export function scripted200(): Trace {
  const random = chance(1)
  const pieces = tokens('en', 200 * 12, random, 4)
  return { name: '200 short tok/s', arrivals: coalesced(pieces.map((text, i) => [5 * i, text])) }
}

/** A lump of `size` characters every `everyMs`. */
export function bursts(size: number, everyMs: number, count: number): Trace {
  const text = ENGLISH.repeat(Math.ceil((size * count) / ENGLISH.length))
  return {
    name: `${size} characters every ${everyMs} ms`,
    arrivals: Array.from({ length: count }, (_, i) => [
      i * everyMs,
      text.slice(i * size, (i + 1) * size),
    ]),
  }
}

/** Drafts that are accepted in part: 2 to 6 tokens an arrival. */
export function speculative(rate: number, seconds: number, seed = 2): Trace {
  const random = chance(seed)
  const all = tokens('en', rate * seconds, random)
  const arrivals: Arrival[] = []
  for (let at = 0, now = 0; at < all.length;) {
    const size = 2 + Math.floor(random() * 5)
    arrivals.push([now, all.slice(at, at + size).join('')])
    at += size
    now += (4 / rate) * 1000
  }
  return { name: `speculative, ${rate} tok/s`, arrivals }
}

/** A trace that stands still every `everyMs` for `stallMs`; what was due meanwhile comes as one lump. */
export function stalled(trace: Trace, everyMs: number, stallMs: number): Trace {
  const held = trace.arrivals.map(([at, text]): Arrival => {
    const into = at % (everyMs + stallMs)
    return [into < everyMs ? at : at - into + everyMs + stallMs, text]
  })
  return { name: `${trace.name}, ${stallMs} ms stalls`, arrivals: coalesced(held) }
}

export function dump(length: number): Trace {
  const text = ENGLISH.repeat(Math.ceil(length / ENGLISH.length)).slice(0, length)
  return { name: `${length} characters at once`, arrivals: [[0, text]] }
}

/** A trace that ends right behind a lump. */
export function endingInBurst(size: number): Trace {
  const { arrivals } = steady(40, 'en', 3)
  const last = arrivals.at(-1)?.[0] ?? 0
  return {
    name: `end behind ${size} characters`,
    arrivals: [...arrivals, [last + 25, ENGLISH.repeat(9).slice(0, size)]],
  }
}

/** What real servers sent: see `bench/page/record.py`. */
export function recorded(): Trace[] {
  const folder = new URL('./traces/', import.meta.url)
  return readdirSync(folder).map((file) => ({
    name: `recorded: ${file.replace(/\.json$/, '')}`,
    arrivals: JSON.parse(readFileSync(new URL(file, folder), 'utf8')) as Arrival[],
  }))
}

export function textOf({ arrivals }: Trace): string {
  return arrivals.map(([, text]) => text).join('')
}

/** The page takes at once what has come since it looked last. */
function coalesced(arrivals: readonly Arrival[]): Arrival[] {
  const together: [number, string][] = []
  for (const [at, text] of arrivals) {
    const last = together.at(-1)
    if (last && at - last[0] < READ_EVERY_MS) last[1] += text
    else together.push([at, text])
  }
  return together
}

export function hertz(rate: number): Clock {
  return (frame) => (frame * 1000) / rate
}

/** Every fifth frame or so comes one to three frames late, as on a busy page. */
export function dropping(rate: number, seed = 3): Clock {
  const random = chance(seed)
  const at = [0]
  return (frame) => {
    while (at.length <= frame) {
      const late = random() < 0.2 ? 1 + Math.floor(random() * 3) : 0
      at.push((at.at(-1) ?? 0) + ((1 + late) * 1000) / rate)
    }
    return at[frame] ?? 0
  }
}

class TraceFrames implements Frames {
  time = 0
  #run: ((now: number) => void) | null = null
  #notBefore = 0

  readonly request: Frames['request'] = (run, afterMs) => {
    this.#run = run
    this.#notBefore = this.time + afterMs
    return () => void (this.#run = null)
  }
  readonly now = (): number => this.time
  readonly isHidden = (): boolean => false

  fire(): void {
    if (this.time < this.#notBefore) return
    const run = this.#run
    this.#run = null
    run?.(this.time)
  }
}

/** What was in view from when on. */
export interface Seen {
  readonly at: number
  readonly length: number
}

/** Play a trace against a frame clock, and go on until all is in view. */
export function play(trace: Trace, mode: Mode, clock: Clock): Seen[] {
  const frames = new TraceFrames()
  const seen: Seen[] = []
  const show = (length: number): void => void seen.push({ at: frames.time, length })
  const reveal = new Reveal({ frames, mode, text: '', show })
  let text = ''
  let next = 0
  for (let frame = 0; next < trace.arrivals.length || reveal.isBehind; frame += 1) {
    const now = clock(frame)
    for (let due = trace.arrivals[next]; due && due[0] <= now; due = trace.arrivals[next]) {
      frames.time = due[0]
      text += due[1]
      next += 1
      reveal.update(text, { isWhole: next === trace.arrivals.length })
    }
    frames.time = now
    frames.fire()
  }
  return seen
}

export interface Measured {
  readonly name: string
  readonly first: number
  readonly p95: number
  readonly max: number
  readonly tail: number
  readonly evenness: number
  readonly largestPaint: number
  /** How often something was drawn. */
  readonly perSecond: number
}

/** Lags are per UTF-16 unit, in milliseconds; evenness is the variation of text per 100 ms while text comes. */
export function measure(trace: Trace, mode: Mode, clock: Clock): Measured {
  const seen = play(trace, mode, clock)
  const lags = lagsOf(trace, seen).sort((a, b) => a - b)
  const end = trace.arrivals.at(-1)?.[0] ?? 0
  return {
    name: trace.name,
    first: (seen[0]?.at ?? 0) - (trace.arrivals[0]?.[0] ?? 0),
    p95: lags[Math.ceil(lags.length * 0.95) - 1] ?? 0,
    max: lags.at(-1) ?? 0,
    tail: (seen.at(-1)?.at ?? 0) - end,
    evenness: variation(per100ms(seen, trace.arrivals[0]?.[0] ?? 0, end)),
    largestPaint: largestPaint(textOf(trace), seen),
    perSecond: (seen.length * 1000) / ((seen.at(-1)?.at ?? 0) - (seen[0]?.at ?? 0)),
  }
}

function lagsOf(trace: Trace, seen: readonly Seen[]): number[] {
  const lags: number[] = []
  let frame = 0
  for (const [at, text] of trace.arrivals) {
    for (let unit = 0; unit < text.length; unit += 1) {
      while ((seen[frame]?.length ?? Infinity) <= lags.length) frame += 1
      lags.push((seen[frame]?.at ?? Infinity) - at)
    }
  }
  return lags
}

function per100ms(seen: readonly Seen[], from: number, to: number): number[] {
  const bins = new Array<number>(Math.max(1, Math.floor((to - from) / 100))).fill(0)
  let before = 0
  for (const { at, length } of seen) {
    const bin = Math.floor((at - from) / 100)
    if (bin < bins.length) bins[bin] = (bins[bin] ?? 0) + length - before
    before = length
  }
  // How it begins and how it ends are measured elsewhere.
  return bins.slice(5, -5)
}

function variation(values: readonly number[]): number {
  if (values.length === 0) return 0
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length
  const spread = values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / values.length
  return Math.sqrt(spread) / mean
}

function largestPaint(text: string, seen: readonly Seen[]): number {
  const segmenter = new Intl.Segmenter()
  let before = 0
  let largest = 0
  for (const { length } of seen) {
    largest = Math.max(largest, [...segmenter.segment(text.slice(before, length))].length)
    before = length
  }
  return largest
}
