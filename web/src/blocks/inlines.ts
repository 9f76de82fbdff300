/**
 * The text of a block on the page. The framework's effects for every word would take many times the memory of the
 * text; and here a text that grows is added to, so that the browser shapes only what is new of it.
 */
import { CHUNK, type Chunks } from '../stream/markdown/chunks.ts'
import type { Inline, Link } from '../stream/markdown/tree.ts'
import { externalUrl } from '../stream/markdown/urls.ts'
import { Formula } from './formula.ts'
import { isUnseen, showsHost } from './links.ts'
import { ShownPicture } from './picture.ts'
import { plain } from './plain.ts'
import { retext } from './text.ts'
import type { BlockWords } from './words.ts'

/** Drawing is recursive: what lies deeper than anybody would write is plain text. */
const DEEPEST = 32
const NAMES = { strong: 'strong', emphasis: 'em', strike: 's' } as const

type Of<Type> = Extract<Inline, { readonly type: Type }>

/** A node of the tree as it stands on the page. */
interface Drawn {
  readonly node: ChildNode
  /** Be this from now on. Returns whether that could be done. */
  become(inline: Inline): boolean
  destroy(): void
}

/** Nodes that stand in an element, one behind the other. */
export class InlineList {
  readonly #parent: Node
  readonly #words: () => BlockWords
  readonly #depth: number
  #chunks: Chunks<Inline> = []
  readonly #drawn: Drawn[] = []

  constructor(parent: Node, words: () => BlockWords, depth = 0) {
    this.#parent = parent
    this.#words = words
    this.#depth = depth
  }

  /** Chunks that are the same as before are not looked at. */
  become(chunks: Chunks<Inline>): void {
    const before = this.#chunks
    this.#chunks = chunks
    let same = 0
    while (same < chunks.length && chunks[same] === before[same]) same += 1
    if (same === chunks.length && same === before.length) return
    let at = same * CHUNK
    for (const inline of chunks.slice(same).flat()) this.#put(at++, inline)
    for (const surplus of this.#drawn.splice(at)) {
      surplus.node.remove()
      surplus.destroy()
    }
  }

  destroy(): void {
    for (const drawn of this.#drawn) drawn.destroy()
  }

  #put(at: number, inline: Inline): void {
    const before = this.#drawn[at]
    if (before?.become(inline)) return
    const drawn = this.#draw(inline)
    this.#drawn[at] = drawn
    if (before === undefined) this.#parent.appendChild(drawn.node)
    else before.node.replaceWith(drawn.node)
    before?.destroy()
  }

  #draw(inline: Inline): Drawn {
    if (typeof inline === 'string') return new DrawnText(inline)
    if (this.#depth >= DEEPEST) return new DrawnText(plain(inline))
    switch (inline.type) {
      case 'strong':
      case 'emphasis':
      case 'strike':
        return new DrawnSpan(inline, this.#words, this.#depth + 1)
      case 'code':
        return new DrawnCode(inline)
      case 'link':
        return new DrawnLink(inline, this.#words, this.#depth + 1)
      case 'math':
        return new DrawnFormula(inline)
      case 'image':
        return new ShownPicture(inline, this.#words)
      case 'footnote':
        return new DrawnMark('sup', inline.label)
      case 'break':
        return new DrawnMark('br', '')
    }
  }
}

class DrawnText implements Drawn {
  readonly node: Text
  #text: string

  constructor(text: string) {
    this.node = document.createTextNode(text)
    this.#text = text
  }

  become(inline: Inline): boolean {
    if (typeof inline !== 'string') return false
    retext(this.node, this.#text, inline)
    this.#text = inline
    return true
  }

  destroy(): void {}
}

class DrawnSpan implements Drawn {
  readonly node: HTMLElement
  readonly #type: keyof typeof NAMES
  readonly #children: InlineList

  constructor({ type, children }: Of<keyof typeof NAMES>, words: () => BlockWords, depth: number) {
    this.node = document.createElement(NAMES[type])
    this.#type = type
    this.#children = new InlineList(this.node, words, depth)
    this.#children.become([children])
  }

  become(inline: Inline): boolean {
    if (typeof inline === 'string' || inline.type !== this.#type) return false
    this.#children.become([inline.children])
    return true
  }

  destroy(): void {
    this.#children.destroy()
  }
}

class DrawnCode implements Drawn {
  readonly node = document.createElement('code')
  readonly #text: DrawnText

  constructor({ text }: Of<'code'>) {
    this.#text = new DrawnText(text)
    this.node.append(this.#text.node)
  }

  become(inline: Inline): boolean {
    return typeof inline !== 'string' && inline.type === 'code' && this.#text.become(inline.text)
  }

  destroy(): void {}
}

/** An address that does not lead out by a harmless scheme is no link. */
class DrawnLink implements Drawn {
  readonly node = document.createElement('span')
  #link: Link
  readonly #children: InlineList

  constructor(link: Link, words: () => BlockWords, depth: number) {
    this.#link = link
    const url = link.href === null ? null : externalUrl(link.href)
    const around = url ? anchor(url, link.title) : this.node
    this.#children = new InlineList(around, words, depth)
    if (!url || !isUnseen(link)) this.#children.become([link.children])
    if (!url) return
    if (isUnseen(link)) around.append(url.host || url.pathname)
    this.node.append(around)
    if (url.host && !isUnseen(link) && !showsHost(link, url)) this.node.append(hostOf(url))
  }

  /** What a bare address leads to changes with its text. */
  become(inline: Inline): boolean {
    if (typeof inline === 'string' || inline.type !== 'link') return false
    const { href, title, isBare } = this.#link
    const isSame = inline.href === href && inline.title === title && inline.isBare === isBare
    if (!isSame || isUnseen(inline) || isUnseen(this.#link)) return false
    this.#link = inline
    this.#children.become([inline.children])
    return true
  }

  destroy(): void {
    this.#children.destroy()
  }
}

function anchor(url: URL, title: string): HTMLElement {
  const element = document.createElement('a')
  element.href = url.href
  element.title = title || url.href
  element.target = '_blank'
  element.rel = 'noopener noreferrer nofollow'
  return element
}

function hostOf(url: URL): HTMLElement {
  const element = document.createElement('span')
  element.className = 'host'
  element.textContent = url.host
  return element
}

class DrawnFormula implements Drawn {
  readonly node = document.createElement('span')
  readonly #isDisplay: boolean
  readonly #formula: Formula

  constructor(math: Of<'math'>) {
    this.#isDisplay = math.isDisplay
    this.#formula = new Formula(this.node, math.isDisplay)
    this.#formula.become(math.tex, math.isOpen)
  }

  become(inline: Inline): boolean {
    if (typeof inline === 'string' || inline.type !== 'math') return false
    if (inline.isDisplay !== this.#isDisplay) return false
    this.#formula.become(inline.tex, inline.isOpen)
    return true
  }

  destroy(): void {}
}

/** What never changes by itself. */
class DrawnMark implements Drawn {
  readonly node: HTMLElement
  readonly #label: string

  constructor(name: 'br' | 'sup', label: string) {
    this.node = document.createElement(name)
    this.node.textContent = label
    this.#label = label
  }

  become(inline: Inline): boolean {
    if (typeof inline === 'string') return false
    const label = inline.type === 'footnote' ? inline.label : inline.type === 'break' ? '' : null
    return label === this.#label
  }

  destroy(): void {}
}
