/** A formula on the page: its source until it is typeset, and a mark until its source is there. */
import { typeset } from './typeset.ts'

export class Formula {
  readonly #element: HTMLElement
  readonly #isDisplay: boolean
  #tex: string | null = null
  #isOpen = true

  constructor(element: HTMLElement, isDisplay: boolean) {
    this.#element = element
    this.#isDisplay = isDisplay
    element.className = 'formula'
    element.dir = 'ltr'
    if (!isDisplay) return
    element.classList.add('display')
    // The keyboard must be able to scroll one that is wider than the page.
    element.tabIndex = 0
  }

  /** `isOpen`: its end has not arrived. There is nothing to typeset yet, and its source is not for readers. */
  become(tex: string, isOpen: boolean): void {
    const isSame = isOpen === this.#isOpen && (isOpen || tex === this.#tex)
    if (isSame && this.#tex !== null) return
    const hasGrown = this.#tex !== null
    this.#tex = tex
    this.#isOpen = isOpen
    if (isOpen) this.#say('\u2026')
    else if (hasGrown) setTimeout(() => this.#typeset(tex))
    else this.#typeset(tex)
  }

  /** A formula that has just ended is typeset in a task of its own: it takes as long as a frame has. */
  #typeset(tex: string): void {
    if (!this.#isStill(tex)) return
    this.#say(tex)
    void typeset().then((render) => {
      const isThere = this.#element.isConnected && this.#isStill(tex)
      if (isThere) render(this.#element, tex, this.#isDisplay)
    })
  }

  #isStill(tex: string): boolean {
    return !this.#isOpen && this.#tex === tex
  }

  #say(text: string): void {
    const coming = document.createElement('span')
    coming.className = 'coming'
    coming.textContent = text
    this.#element.replaceChildren(coming)
  }
}
