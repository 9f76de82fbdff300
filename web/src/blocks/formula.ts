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
    this.#tex = tex
    this.#isOpen = isOpen
    const coming = document.createElement('span')
    coming.className = 'coming'
    coming.textContent = isOpen ? '\u2026' : tex
    this.#element.replaceChildren(coming)
    if (!isOpen) void this.#typeset(tex)
  }

  async #typeset(tex: string): Promise<void> {
    const render = await typeset()
    const isWanted = this.#element.isConnected && !this.#isOpen && this.#tex === tex
    if (isWanted) render(this.#element, tex, this.#isDisplay)
  }
}
