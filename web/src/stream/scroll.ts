/**
 * The one owner of the scroll position: at the end while the reader is there, where the reader put it
 * otherwise.
 *
 * A scroll event says nothing of who caused it. Position does: what we wrote is at the end, so a position
 * further up is the reader's, whether it came from a scrollbar, a search in the page or a moved focus. Where
 * a scroll begins too gently for that, what the reader did says it (`onIntent`). Nothing is written before
 * looking where the reader is, nor while a mouse button or a finger is down on the text: browsers give up a
 * selection that is being dragged when a script scrolls, and what is let go elsewhere was never clicked.
 */
import { InPlace } from './anchor.ts'
import { onIntent, type Intent } from './intent.ts'
import { ABOVE_QUESTION_PX, Room } from './room.ts'

/** Up this far and it was meant. */
const DRIFT_PX = 3
/** Down to this far from the end and it is meant to follow again. */
const NEAR_PX = 24
/** More than this does not come between what is shown and what is there. */
const UNSHOWN_PX = 100

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

/**
 * Whether to follow after the position has become this. `aim` is how high the content was when the reader set out
 * for its end: a browser scrolls to what was the end then, and by then there is more. Pure.
 */
export function scrolled(pin: Pin, position: Position, aim = Infinity): Pin {
  const { top, content } = position
  const toEnd = content - position.view - top
  const isUp = top < pin.top - DRIFT_PX && toEnd > DRIFT_PX
  // Content that shrinks pushes the position up, and nobody scrolled. It may have shrunk further and grown again.
  const isPushed = content < pin.content
  if (isUp && !isPushed) return { follows: false, top, content }
  // Who holds on to something at the end has not come back to it.
  const isBack = top > pin.top && Math.min(content, aim) - position.view - top <= NEAR_PX
  return { follows: pin.follows || isBack, top, content }
}

export interface Stick {
  /** Go to the top and stay there. */
  readonly toStart: () => void
  /** Go to the end and follow it. */
  readonly toEnd: () => void
  /**
   * Put the question that `find` finds near the top and follow the end: the answer grows into the empty room below
   * it without any motion, until that is full. `find` is called at every growth, so it is quick.
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
  return new Owner(scroller, content, onChange)
}

class Owner implements Stick {
  readonly #scroller: HTMLElement
  readonly #onChange: (follows: boolean) => void
  readonly #room: Room
  readonly #inPlace: InPlace
  readonly #left = new AbortController()
  readonly #watch = new ResizeObserver(() => this.#resized())
  /**
   * A scroll in the frame that grows would cost another frame, for its event: a text that grows before the frame
   * is scrolled to before it. Whatever else is drawn has a task of its own, which is not to be longer for it.
   */
  readonly #drawn = new MutationObserver(() => this.#isFollowing && this.#resized())
  #pin: Pin = { follows: true, top: 0, content: 0 }
  /** How high the content was a look ago: a browser scrolls what it shows, not what is there already. */
  #shown = 0
  #aim = Infinity
  #width = 0
  /** Something is pressed. What moved away under it could be neither clicked nor selected. */
  #isHeld = false

  constructor(scroller: HTMLElement, content: HTMLElement, onChange: (follows: boolean) => void) {
    this.#scroller = scroller
    this.#onChange = onChange
    this.#room = new Room(scroller, content)
    this.#inPlace = new InPlace(scroller)
    this.#inPlace.enable(false)
    const { signal } = this.#left
    scroller.addEventListener('scroll', () => this.#moved(), { passive: true, signal })
    scroller.addEventListener('scrollend', () => (this.#aim = Infinity), { passive: true, signal })
    onIntent(scroller, content, signal, (intent) => this.#heed(intent))
    this.#watch.observe(content)
    this.#watch.observe(scroller)
    this.#drawn.observe(content, { subtree: true, characterData: true })
  }

  toStart(): void {
    this.#room.drop()
    this.#scroller.scrollTop = 0
    this.#set({ follows: false, top: 0, content: this.#scroller.scrollHeight })
  }

  toEnd(): void {
    this.#room.drop()
    this.#goToEnd()
  }

  toQuestion(find: () => HTMLElement | null): void {
    this.#room.make(find)
    this.#goToEnd()
  }

  stay(): void {
    this.#room.drop()
    this.#set({ ...this.#pin, follows: false })
  }

  toPart(part: HTMLElement): void {
    this.#room.drop()
    const above = part.getBoundingClientRect().top - this.#scroller.getBoundingClientRect().top
    this.#scroller.scrollTop += above - ABOVE_QUESTION_PX
    const { top, view, content } = positionOf(this.#scroller)
    this.#set({ follows: content - view - top <= DRIFT_PX, top, content })
    this.#inPlace.remember()
  }

  destroy(): void {
    this.#left.abort()
    this.#drawn.disconnect()
    this.#watch.disconnect()
    this.#inPlace.enable(false)
    this.#room.drop()
  }

  get #isFollowing(): boolean {
    return this.#pin.follows && !this.#isHeld
  }

  #set(pin: Pin): void {
    const isNew = pin.follows !== this.#pin.follows
    this.#pin = pin
    if (!isNew) return
    this.#inPlace.enable(!this.#isFollowing)
    this.#onChange(pin.follows)
  }

  #look(): void {
    const position = positionOf(this.#scroller)
    const isReset = this.#scroller.clientWidth !== this.#width
    this.#width = this.#scroller.clientWidth
    this.#shown = this.#pin.content
    // Where the browser has put a view of another width is not where its reader went.
    if (isReset) this.#set({ ...this.#pin, top: position.top, content: position.content })
    else this.#set(scrolled(this.#pin, position, this.#aim))
  }

  #goToEnd(): void {
    const content = this.#scroller.scrollHeight
    this.#scroller.scrollTop = content
    this.#set({ follows: true, top: this.#scroller.scrollTop, content })
  }

  #resized(): void {
    // The reader may have moved since the last scroll event, and a shorter content may have pushed the position:
    // that can be told from each other only before there is room again.
    this.#look()
    this.#room.fit()
    if (this.#isFollowing) this.#goToEnd()
    else this.#restore()
  }

  #restore(): void {
    this.#inPlace.restore()
    const { top, content } = positionOf(this.#scroller)
    // What we have put back is no reader's coming back to the end.
    this.#set({ ...this.#pin, top, content })
  }

  #moved(): void {
    this.#look()
    this.#inPlace.remember()
  }

  #heed(intent: Intent): void {
    switch (intent) {
      case 'down':
        this.#aim = Math.max(this.#shown, this.#scroller.scrollHeight - UNSHOWN_PX)
        return
      case 'up':
        this.#aim = Infinity
        if (this.#scroller.scrollTop > 0) this.#set({ ...this.#pin, follows: false })
        return this.#inPlace.remember()
      case 'end':
        return this.#goToEnd()
      case 'press':
      case 'release':
        return this.#hold(intent === 'press')
    }
  }

  #hold(isHeld: boolean): void {
    if (isHeld === this.#isHeld) return
    this.#isHeld = isHeld
    this.#inPlace.enable(!this.#isFollowing)
    if (this.#isFollowing) this.#resized()
  }
}

function positionOf(scroller: HTMLElement): Position {
  return {
    top: scroller.scrollTop,
    view: scroller.clientHeight,
    content: scroller.scrollHeight,
  }
}
