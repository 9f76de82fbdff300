/**
 * Colours code that is on the page as plain text, by the CSS Custom Highlight API: no element is added or
 * changed, so nothing moves and a selection stays. Where a browser lacks it, code is not coloured.
 */
import { CHUNK, type Chunks } from '../stream/markdown/chunks.ts'
import { KINDS, type Kind, type Tokens } from './tokens.ts'

/** So many ranges are made in one frame. */
const BATCH = 1_500

interface Painted {
  readonly line: number
  readonly from: number
  readonly to: number
  readonly kind: Kind
  readonly range: StaticRange
}

export const canPaint = typeof CSS !== 'undefined' && 'highlights' in CSS

function highlightOf(kind: Kind): Highlight {
  const name = `code-${kind}`
  const highlight = CSS.highlights.get(name) ?? new Highlight()
  CSS.highlights.set(name, highlight)
  return highlight
}

/** The colours of one piece of code, of which each chunk of lines is one text node. */
export class Paint {
  #painted: Painted[] = []
  #frame: number | null = null

  /** `nodeOf` finds the text of a chunk. What is painted already and stays so is left alone. */
  show(tokens: Tokens, lines: Chunks<string>, nodeOf: (chunk: number) => Text | undefined): void {
    const kept = this.#commonWith(tokens)
    this.#remove(kept)
    this.#stop()
    this.#paintFrom(kept, tokens, lines, nodeOf)
  }

  clear(): void {
    this.#stop()
    this.#remove(0)
  }

  #stop(): void {
    if (this.#frame !== null) cancelAnimationFrame(this.#frame)
    this.#frame = null
  }

  #commonWith({ places, kinds }: Tokens): number {
    const differs = this.#painted.findIndex(
      ({ line, from, to, kind }, at) =>
        places[3 * at] !== line ||
        places[3 * at + 1] !== from ||
        places[3 * at + 2] !== to ||
        kinds[at] !== kind,
    )
    return differs < 0 ? this.#painted.length : differs
  }

  #remove(from: number): void {
    for (const { kind, range } of this.#painted.splice(from)) highlightOf(kind).delete(range)
  }

  #paintFrom(
    from: number,
    tokens: Tokens,
    lines: Chunks<string>,
    nodeOf: (chunk: number) => Text | undefined,
  ): void {
    const end = Math.min(tokens.kinds.length, from + BATCH)
    for (let at = from; at < end; at += 1) {
      const painted = paintedAt(at, tokens, lines, nodeOf)
      if (painted === null) return
      highlightOf(painted.kind).add(painted.range)
      this.#painted.push(painted)
    }
    if (end < tokens.kinds.length)
      this.#frame = requestAnimationFrame(() => this.#paintFrom(end, tokens, lines, nodeOf))
  }
}

/** `null` where the text is not on the page, or not any more. */
function paintedAt(
  at: number,
  { places, kinds }: Tokens,
  lines: Chunks<string>,
  nodeOf: (chunk: number) => Text | undefined,
): Painted | null {
  const [line = 0, from = 0, to = 0] = places.subarray(3 * at, 3 * at + 3)
  const node = nodeOf(Math.floor(line / CHUNK))
  const kind = kinds[at] ?? KINDS[0]
  const start = offsetOf(line, lines)
  if (node === undefined || start + to > node.length) return null
  const range = new StaticRange({
    startContainer: node,
    startOffset: start + from,
    endContainer: node,
    endOffset: start + to,
  })
  return { line, from, to, kind, range }
}

function offsetOf(line: number, lines: Chunks<string>): number {
  const chunk = lines[Math.floor(line / CHUNK)] ?? []
  return chunk.slice(0, line % CHUNK).reduce((sum, text) => sum + text.length + 1, 0)
}
