/**
 * The one owner of the scroll position: at the end while the reader is there, where the reader put it
 * otherwise.
 *
 * A scroll event says nothing of who caused it. Position does: what we wrote is at the end, so a position
 * further up is the reader's, whether it came from a scrollbar, a search in the page or a moved focus. Where
 * a scroll begins too gently for that, what the reader did says it (`onIntent`). Nothing is written before
 * looking where the reader is.
 */
import { keepInPlace } from './anchor.ts'
import { onIntent } from './intent.ts'

/** Up this far and it was meant. */
const DRIFT_PX = 3
/** Down to this far from the end and it is meant to follow again. */
const NEAR_PX = 24
/** What stays free above a question that is put at the top. */
const ABOVE_QUESTION_PX = 16

export interface Position {
  readonly top: number
  readonly view: number
  readonly content: number
}

export interface Pin {
  readonly follows: boolean
  readonly top: number
  readonly content: number
}

/** Whether to follow after the position has become this. Pure. */
export function scrolled(pin: Pin, position: Position): Pin {
  const { top, content } = position
  const toEnd = content - position.view - top
  const isUp = top < pin.top - DRIFT_PX && toEnd > DRIFT_PX
  // Content that shrinks pushes the position up, and nobody scrolled. It may have shrunk further and grown again.
  const isPushed = content < pin.content
  if (isUp && !isPushed) return { follows: false, top, content }
  // Who holds on to something at the end has not come back to it.
  const isBack = top > pin.top && toEnd <= NEAR_PX
  return { follows: pin.follows || isBack, top, content }
}

export interface Stick {
  /** Go to the top and stay there. */
  readonly toStart: () => void
  /** Go to the end and follow it. */
  readonly toEnd: () => void
  /**
   * Put the question that `find` finds (at every growth: quickly) near the top and follow the end: the answer grows into the empty room
   * below it without any motion, until that is full.
   */
  readonly toQuestion: (find: () => HTMLElement | null) => void
  /** Stay where the reader is, whatever becomes of the content. */
  readonly stay: () => void
  /** Put a part of the content near the top and leave it there. */
  readonly toPart: (part: HTMLElement) => void
  readonly destroy: () => void
}

/** Keep `scroller` at its end while `content`, its only child, grows. `onChange` hears whether it follows. */
export function stick(
  scroller: HTMLElement,
  content: HTMLElement,
  onChange: (follows: boolean) => void,
): Stick {
  const room = new Room(scroller, content)
  const inPlace = keepInPlace(scroller)
  let pin: Pin = { follows: true, top: 0, content: 0 }
  const set = (next: Pin): void => {
    if (next.follows !== pin.follows) {
      inPlace.enable(!next.follows)
      onChange(next.follows)
    }
    pin = next
  }
  const look = (): void => set(scrolled(pin, positionOf(scroller)))
  const toEnd = (): void => {
    const content = scroller.scrollHeight
    scroller.scrollTop = content
    set({ follows: true, top: scroller.scrollTop, content })
  }
  const resized = (): void => {
    // The reader may have moved since the last scroll event, and a shorter content may have pushed the position:
    // that can be told from each other only before there is room again.
    look()
    room.fit()
    if (pin.follows) toEnd()
    else inPlace.restore()
  }
  const left = new AbortController()
  const moved = (): void => {
    look()
    inPlace.remember()
  }
  scroller.addEventListener('scroll', moved, { passive: true, signal: left.signal })
  onIntent(scroller, content, left.signal, (intent) => {
    if (intent === 'end') toEnd()
    else if (scroller.scrollTop > 0) set({ ...pin, follows: false })
  })
  // A scroll in the frame that grows would cost another frame, for its event: a text that grows before the frame
  // is scrolled to before it. Whatever else is drawn has a task of its own, which is not to be longer for it.
  const drawn = new MutationObserver(() => {
    if (pin.follows) resized()
  })
  drawn.observe(content, { subtree: true, characterData: true })
  const watch = new ResizeObserver(resized)
  watch.observe(content)
  watch.observe(scroller)
  inPlace.enable(false)
  return {
    toStart: () => {
      room.drop()
      scroller.scrollTop = 0
      set({ follows: false, top: 0, content: scroller.scrollHeight })
    },
    toEnd: () => {
      room.drop()
      toEnd()
    },
    toQuestion: (find) => {
      room.make(find)
      toEnd()
    },
    stay: () => {
      room.drop()
      set({ ...pin, follows: false })
    },
    toPart: (part) => {
      room.drop()
      const above = part.getBoundingClientRect().top - scroller.getBoundingClientRect().top
      scroller.scrollTop += above - ABOVE_QUESTION_PX
      const { top, view, content } = positionOf(scroller)
      set({ follows: content - view - top <= DRIFT_PX, top, content })
      inPlace.remember()
    },
    destroy: () => {
      left.abort()
      drawn.disconnect()
      watch.disconnect()
      room.drop()
    },
  }
}

/**
 * The empty room below a question at the top, as the least height of the content: it fills without any motion,
 * and where something in it shrinks (thinking that is folded) the browser has no reason to push the position up.
 */
class Room {
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

function positionOf(scroller: HTMLElement): Position {
  return {
    top: scroller.scrollTop,
    view: scroller.clientHeight,
    content: scroller.scrollHeight,
  }
}
