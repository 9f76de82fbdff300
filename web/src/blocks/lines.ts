/**
 * Code on the page. A chunk of lines is laid out again only when something in it changes, and coloured only when
 * no selection is lost by it.
 *
 * Colours are elements. The CSS Custom Highlight API needs none, but has the browser validate and paint every
 * range on the page anew in each frame that changes a text anywhere.
 */
import type { Tokens } from '../highlight/tokens.ts'
import { CHUNK, type Chunks } from '../stream/markdown/chunks.ts'
import { isSelectedIn, watchSelection } from './selected.ts'

/** So many chunks are coloured in one frame. */
const BATCH = 40

/** Where in the text of a chunk something is coloured. */
interface Mark {
  readonly from: number
  readonly to: number
  readonly kind: string
}

/** `held`: something is selected there. */
type Coloured = 'now' | 'before' | 'held'

export class CodeLines {
  readonly #parent: HTMLElement
  #chunks: Chunks<string> = []
  readonly #shown: ShownChunk[] = []
  #frame: number | null = null
  /** What colours the chunks that are held. */
  #later: readonly (() => Coloured)[] = []
  #watch: AbortController | null = null

  constructor(parent: HTMLElement) {
    this.#parent = parent
  }

  /** Chunks that are the same as before are not looked at. */
  become(chunks: Chunks<string>): void {
    const before = this.#chunks
    this.#chunks = chunks
    for (const [at, chunk] of chunks.entries()) {
      if (chunk !== before[at]) (this.#shown[at] ?? this.#add()).become(chunk.join('\n'))
    }
    for (const { element } of this.#shown.splice(chunks.length)) element.remove()
  }

  /** `lines` is what the tokens were found in: where something else stands by now they are of no use. */
  colour(tokens: Tokens, lines: Chunks<string>): void {
    this.destroy()
    this.#colourFrom(0, marksOf(tokens, lines), lines)
  }

  destroy(): void {
    if (this.#frame !== null) cancelAnimationFrame(this.#frame)
    this.#frame = null
    this.#hold([])
  }

  #colourFrom(from: number, marks: readonly (readonly Mark[])[], lines: Chunks<string>): void {
    let left = BATCH
    for (let at = from; at < lines.length; at += 1) {
      const colour = (): Coloured =>
        this.#shown[at]?.colour(marks[at] ?? [], lines[at]?.join('\n') ?? '') ?? 'before'
      const coloured = colour()
      if (coloured === 'held') this.#hold([...this.#later, colour])
      if (coloured === 'now') left -= 1
      if (left > 0) continue
      this.#frame = requestAnimationFrame(() => this.#colourFrom(at + 1, marks, lines))
      return
    }
  }

  #hold(later: readonly (() => Coloured)[]): void {
    this.#later = later
    if (later.length === 0) {
      this.#watch?.abort()
      this.#watch = null
    } else if (this.#watch === null) {
      this.#watch = new AbortController()
      watchSelection(this.#parent.ownerDocument, this.#watch.signal, () =>
        this.#hold(this.#later.filter((colour) => colour() === 'held')),
      )
    }
  }

  #add(): ShownChunk {
    const shown = new ShownChunk()
    this.#shown.push(shown)
    this.#parent.append(shown.element)
    return shown
  }
}

class ShownChunk {
  readonly element = document.createElement('span')
  #text = ''
  /** What stands behind the last mark, where the text grows. */
  #end = document.createTextNode('')
  #marks = ''

  constructor() {
    this.#fill([], this.#end)
  }

  become(text: string): void {
    if (text.startsWith(this.#text)) this.#end.appendData(text.slice(this.#text.length))
    else this.#fill([], document.createTextNode(text))
    this.#text = text
  }

  colour(marks: readonly Mark[], text: string): Coloured {
    const told = JSON.stringify(marks)
    if (told === this.#marks || !this.#text.startsWith(text)) return 'before'
    if (isSelectedIn(this.element)) return 'held'
    const nodes: Node[] = []
    let at = 0
    for (const { from, to, kind } of marks) {
      if (from > at) nodes.push(document.createTextNode(text.slice(at, from)))
      nodes.push(coloured(text.slice(from, to), kind))
      at = to
    }
    this.#fill(nodes, document.createTextNode(this.#text.slice(at)))
    this.#marks = told
    return 'now'
  }

  /** The line feed behind the last line has a node of its own, so that the text grows in front of it. */
  #fill(nodes: readonly Node[], end: Text): void {
    this.element.replaceChildren(...nodes, end, '\n')
    this.#end = end
    this.#marks = ''
  }
}

function coloured(text: string, kind: string): HTMLElement {
  const element = document.createElement('span')
  element.className = kind
  element.textContent = text
  return element
}

/** The marks of each chunk. */
function marksOf({ places, kinds }: Tokens, lines: Chunks<string>): Mark[][] {
  const starts = lines.map(startsOf)
  const marks: Mark[][] = lines.map(() => [])
  for (const [at, kind] of kinds.entries()) {
    const [line = 0, from = 0, to = 0] = places.subarray(3 * at, 3 * at + 3)
    const chunk = Math.floor(line / CHUNK)
    const start = starts[chunk]?.[line % CHUNK]
    if (start !== undefined) marks[chunk]?.push({ from: start + from, to: start + to, kind })
  }
  return marks
}

/** Where each line of a chunk begins in its text. */
function startsOf(lines: readonly string[]): number[] {
  let end = 0
  return lines.map((line) => {
    const start = end
    end += line.length + 1
    return start
  })
}
