/**
 * An answer on the page, in parts of a few blocks. Out of sight a part costs nothing but its words: what draws it
 * takes a hundred times their memory.
 */
import { flushSync, mount, unmount, untrack } from 'svelte'
import type { Attachment } from 'svelte/attachments'
import type { Chunks } from '../stream/markdown/chunks.ts'
import type { Block } from '../stream/markdown/tree.ts'
import Blocks from './Blocks.svelte'
import { outline } from './outline.ts'
import type { BlockWords } from './words.ts'

/** The parts of the element, one for each chunk. `isWhole`: nothing of it changes any more. */
export function parts(
  chunks: () => Chunks<Block>,
  isWhole: () => boolean,
  words: () => BlockWords,
): Attachment<HTMLElement> {
  return (element) => {
    const list = new Parts(element, words)
    $effect.pre(() => {
      const [now, isOver] = [chunks(), isWhole()]
      untrack(() => list.become(now, isOver))
    })
    const print = ({ type }: Event): void => flushSync(() => list.print(type === 'beforeprint'))
    window.addEventListener('beforeprint', print)
    window.addEventListener('afterprint', print)
    return () => {
      window.removeEventListener('beforeprint', print)
      window.removeEventListener('afterprint', print)
      list.destroy()
    }
  }
}

class Parts {
  readonly #parent: HTMLElement
  readonly #words: () => BlockWords
  readonly #parts: Part[] = []

  constructor(parent: HTMLElement, words: () => BlockWords) {
    this.#parent = parent
    this.#words = words
  }

  become(chunks: Chunks<Block>, isWhole: boolean): void {
    for (const [at, blocks] of chunks.entries()) {
      const isLast = at === chunks.length - 1
      const part = this.#parts[at] ?? this.#add()
      part.become(blocks, isLast ? (isWhole ? 'last' : 'growing') : 'settled')
    }
    for (const surplus of this.#parts.splice(chunks.length)) surplus.destroy()
  }

  /** On paper nothing is far from view. */
  print(isPrinted: boolean): void {
    for (const part of this.#parts) part.print(isPrinted)
  }

  destroy(): void {
    for (const part of this.#parts) part.destroy()
  }

  #add(): Part {
    const part = new Part(this.#words)
    this.#parts.push(part)
    this.#parent.append(part.element)
    return part
  }
}

/** `settled`: it does not change, and there is another one behind it. */
type State = 'growing' | 'last' | 'settled'

class Part {
  readonly element = document.createElement('div')
  readonly #words: () => BlockWords
  #blocks: readonly Block[] | null = null
  #state: State | null = null
  /** Its height where it is far from view. */
  #keptHeight: number | null = null
  #isPrinted = false
  #drawn: DrawnBlocks | null = null

  constructor(words: () => BlockWords) {
    this.#words = words
    this.element.addEventListener('contentvisibilityautostatechange', this)
  }

  become(blocks: readonly Block[], state: State): void {
    if (blocks === this.#blocks && state === this.#state) return
    this.#blocks = blocks
    this.#state = state
    this.#show(blocks)
  }

  handleEvent({ skipped }: ContentVisibilityAutoStateChangeEvent): void {
    this.#keptHeight = skipped ? this.element.getBoundingClientRect().height : null
    if (this.#blocks) this.#show(this.#blocks)
  }

  print(isPrinted: boolean): void {
    this.#isPrinted = isPrinted
    if (this.#blocks && this.#keptHeight !== null) this.#show(this.#blocks)
  }

  destroy(): void {
    this.#drawn?.destroy()
    this.element.remove()
  }

  get #isAway(): boolean {
    return this.#state === 'settled' && this.#keptHeight !== null && !this.#isPrinted
  }

  #show(blocks: readonly Block[]): void {
    const { style } = this.element
    const height = this.#isPrinted ? null : this.#keptHeight
    style.height = height === null ? '' : `${height}px`
    this.element.className = `part ${this.#state}${this.#isAway ? ' away' : ''}`
    if (this.#isAway) this.#putAway(blocks)
    else this.#draw(blocks)
  }

  #draw(blocks: readonly Block[]): void {
    if (this.#drawn) return this.#drawn.become(blocks)
    this.element.replaceChildren()
    this.#drawn = new DrawnBlocks(this.element, blocks, this.#words)
  }

  /** Its words stand in for it. */
  #putAway(blocks: readonly Block[]): void {
    this.#drawn?.destroy()
    this.#drawn = null
    this.element.replaceChildren(...outline(blocks))
  }
}

class DrawnBlocks {
  #blocks = $state.raw<Chunks<Block>>([])
  readonly #component: ReturnType<typeof mount>

  constructor(target: HTMLElement, blocks: readonly Block[], words: () => BlockWords) {
    this.#blocks = [blocks]
    const now = (): Chunks<Block> => this.#blocks
    const props = {
      get blocks() {
        return now()
      },
      get words() {
        return words()
      },
    }
    this.#component = mount(Blocks, { target, props })
  }

  become(blocks: readonly Block[]): void {
    if (blocks !== this.#blocks[0]) this.#blocks = [blocks]
  }

  destroy(): void {
    void unmount(this.#component)
  }
}
