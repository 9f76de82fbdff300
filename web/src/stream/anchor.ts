/**
 * What is read stays where it is when something above it changes its height: a formula that is typeset, a
 * picture that was loaded, a block that was only estimated while it was out of view.
 *
 * Browsers with scroll anchoring do it themselves, also in the middle of a swipe, which no script can. For
 * the others the element at the top of the view is put back.
 */
export interface InPlace {
  /** Off while the end is followed: two owners of one position would fight. */
  readonly enable: (isOn: boolean) => void
  /** The reader is here. */
  readonly remember: () => void
  /** Something has changed its height. */
  readonly restore: () => void
}

export function keepInPlace(scroller: HTMLElement): InPlace {
  if (!CSS.supports('overflow-anchor', 'auto')) return new OwnAnchor(scroller)
  return {
    enable: (isOn) => (scroller.style.overflowAnchor = isOn ? 'auto' : 'none'),
    remember: () => {},
    restore: () => {},
  }
}

class OwnAnchor implements InPlace {
  readonly #scroller: HTMLElement
  #isOn = false
  #anchor: Element | null = null
  #top = 0

  constructor(scroller: HTMLElement) {
    this.#scroller = scroller
  }

  readonly enable = (isOn: boolean): void => {
    this.#isOn = isOn
    this.remember()
  }

  readonly remember = (): void => {
    if (!this.#isOn) return
    const { left, top, width } = this.#scroller.getBoundingClientRect()
    const page = this.#scroller.ownerDocument
    this.#anchor = page.elementFromPoint(left + width / 2, top + 1)
    this.#top = this.#anchor?.getBoundingClientRect().top ?? 0
  }

  readonly restore = (): void => {
    if (!this.#isOn || !this.#anchor?.isConnected) return
    const moved = this.#anchor.getBoundingClientRect().top - this.#top
    if (Math.abs(moved) >= 1) this.#scroller.scrollTop += moved
  }
}
