/** Code on the page: a chunk of lines is laid out again only when something in it changes. */
import type { Chunks } from '../stream/markdown/chunks.ts'
import { retext } from './text.ts'

export class CodeLines {
  readonly #parent: HTMLElement
  #chunks: Chunks<string> = []
  /** The texts on the page, one for each chunk. */
  readonly #texts: Text[] = []

  constructor(parent: HTMLElement) {
    this.#parent = parent
  }

  /** Chunks that are the same as before are not looked at. */
  become(chunks: Chunks<string>): void {
    const before = this.#chunks
    this.#chunks = chunks
    for (const [at, chunk] of chunks.entries()) {
      const known = before[at]
      if (chunk === known) continue
      const node = this.#texts[at] ?? this.#add()
      retext(node, known?.join('\n') ?? '', chunk.join('\n'))
    }
    for (const surplus of this.#texts.splice(chunks.length)) surplus.parentElement?.remove()
  }

  /** The line feed behind its last line is a node of its own, so that lines are added in front of it. */
  #add(): Text {
    const element = document.createElement('span')
    const text = document.createTextNode('')
    element.append(text, '\n')
    this.#parent.append(element)
    this.#texts.push(text)
    return text
  }
}
