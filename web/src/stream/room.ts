/** What stays free above a question that is put at the top. */
export const ABOVE_QUESTION_PX = 16

/**
 * The empty room below a question at the top, as the least height of the content: it fills without any motion,
 * and where something in it shrinks (thinking that is folded) the browser has no reason to push the position up.
 */
export class Room {
  readonly #scroller: HTMLElement
  readonly #content: HTMLElement
  #find: (() => HTMLElement | null) | null = null
  #least = ''

  constructor(scroller: HTMLElement, content: HTMLElement) {
    this.#scroller = scroller
    this.#content = content
  }

  make(find: () => HTMLElement | null): void {
    this.#find = find
    this.fit()
  }

  fit(): void {
    const question = this.#find?.()
    if (!question) return
    const asked = question.getBoundingClientRect()
    const above = asked.top - this.#content.getBoundingClientRect().top
    const view = this.#scroller.clientHeight
    // Of a long question the end is what the answer belongs to.
    const hidden = Math.max(0, asked.height - view / 2)
    this.#set(`${above + hidden - ABOVE_QUESTION_PX + view}px`)
  }

  drop(): void {
    this.#find = null
    this.#set('')
  }

  #set(least: string): void {
    if (least === this.#least) return
    this.#least = least
    this.#content.style.minHeight = least
  }
}
