/**
 * What is read stays where it is when something above it changes its height: a formula that is typeset, a
 * picture that was loaded, a block that was only estimated while it was out of view.
 *
 * Browsers with scroll anchoring do it themselves, also in the middle of a swipe, which no script can; for the
 * others the line at the top of the view is put back. So it is in all of them when the view has another width: a
 * browser keeps the top of a paragraph in place, and its lines break elsewhere.
 */

/**
 * The line that is so far below the top is the first of which the most can be seen; between two paragraphs it is the
 * one further down.
 */
const FIRST_LINES_PX = [20, 40]

export class InPlace {
  readonly #scroller: HTMLElement
  readonly #isBrowsers = CSS.supports('overflow-anchor', 'auto')
  /** The beginning of a line, or a field: one range for all, as the browser keeps each of them up to date. */
  readonly #place: Range
  /** In which something is being written: it is what is read, wherever in the view. */
  #field: Element | null = null
  /** What is drawn anew takes the place with it, and may be as high as before: nothing else would tell. */
  readonly #redrawn = new MutationObserver(() => this.#isExact || this.restore())
  /** How far the place is below the top of the view. */
  #below = 0
  #isOn = false
  #width = 0
  #height = 0

  constructor(scroller: HTMLElement) {
    this.#scroller = scroller
    this.#place = scroller.ownerDocument.createRange()
  }

  /** Off while the end is followed: two owners of one position would fight. */
  enable(isOn: boolean): void {
    this.#isOn = isOn
    if (this.#isBrowsers) this.#scroller.style.overflowAnchor = isOn ? 'auto' : 'none'
    this.#redrawn.disconnect()
    if (!isOn) return
    this.#redrawn.observe(this.#scroller, { subtree: true, childList: true })
    this.#take()
  }

  /** The reader is here. */
  remember(): void {
    if (!this.#isOn) return
    // Where the browser has put a view of another width is not where its reader was.
    if (this.#isThere && this.#scroller.clientWidth !== this.#width) return
    if (!this.#isExact || this.#moved !== 0 || this.#field !== this.#fieldInView()) this.#take()
  }

  /** Something has changed its height, or the view its size. */
  restore(): void {
    if (!this.#isOn) return
    if (!this.#isThere) return this.#take()
    const { clientWidth, clientHeight } = this.#scroller
    const isReset = clientWidth !== this.#width
    const isLower = clientHeight < this.#height
    this.#width = clientWidth
    this.#height = clientHeight
    const isOurs = isReset || !this.#isBrowsers
    if (isOurs) this.#scroller.scrollTop += this.#moved
    if (isReset || isLower) this.#showField()
    // Where the browser has left its reader is the place.
    if (!this.#isExact || (!isOurs && this.#moved !== 0)) this.#take()
  }

  /** With its buttons, where there is room for both. */
  #showField(): void {
    for (const shown of [this.#field?.closest('form'), this.#field])
      shown?.scrollIntoView({ block: 'nearest', behavior: 'instant' })
  }

  get #isThere(): boolean {
    const { startContainer, collapsed } = this.#place
    return (
      !collapsed && startContainer !== this.#scroller && this.#scroller.contains(startContainer)
    )
  }

  /** What is not drawn yet has no lines to hold on to. */
  get #isExact(): boolean {
    if (!this.#isThere) return false
    return this.#field !== null || this.#place.startContainer instanceof Text
  }

  /** Less than a pixel is rounding. */
  get #moved(): number {
    const moved = this.#belowNow() - this.#below
    return Math.abs(moved) < 1 ? 0 : moved
  }

  #belowNow(): number {
    const { startContainer } = this.#place
    const element =
      startContainer instanceof Element ? startContainer : startContainer.parentElement
    const shown = this.#place.getClientRects()[0] ?? element?.getBoundingClientRect()
    return (shown?.top ?? 0) - this.#scroller.getBoundingClientRect().top
  }

  #take(): void {
    this.#width = this.#scroller.clientWidth
    this.#height = this.#scroller.clientHeight
    this.#field = this.#fieldInView()
    if (this.#field) this.#place.selectNode(this.#field)
    else this.#takeFirstLine()
    this.#below = this.#belowNow()
  }

  #takeFirstLine(): void {
    const page = this.#scroller.ownerDocument
    const { left, top, width } = this.#scroller.getBoundingClientRect()
    for (const below of FIRST_LINES_PX) {
      const y = top + below
      const element = page.elementFromPoint(left + width / 2, y)
      // Whatever lies over the conversation is no place in it.
      if (!element || !this.#scroller.contains(element))
        return this.#place.selectNode(this.#scroller)
      this.#place.selectNode(element)
      const { node, offset } = caretAt(page, element.getBoundingClientRect().left + 1, y)
      if (node instanceof Text) return takeCharacter(this.#place, node, offset)
    }
  }

  #fieldInView(): Element | null {
    const { activeElement } = this.#scroller.ownerDocument
    if (!activeElement?.matches('textarea, input')) return null
    if (!this.#scroller.contains(activeElement)) return null
    const view = this.#scroller.getBoundingClientRect()
    const { top, bottom } = activeElement.getBoundingClientRect()
    return top < view.bottom && bottom > view.top ? activeElement : null
  }
}

interface Caret {
  readonly node: Node | undefined
  readonly offset: number
}

/** Where in the text a point is; the second way is for WebKit. */
function caretAt(page: Document, x: number, y: number): Caret {
  const caret = page.caretPositionFromPoint?.(x, y)
  if (caret) return { node: caret.offsetNode, offset: caret.offset }
  const range = page.caretRangeFromPoint?.(x, y)
  return { node: range?.startContainer, offset: range?.startOffset ?? 0 }
}

/** An empty range would have no height. */
function takeCharacter(range: Range, text: Text, offset: number): void {
  const at = Math.max(0, Math.min(offset, text.length - 1))
  range.setStart(text, at)
  range.setEnd(text, Math.min(at + 1, text.length))
}
