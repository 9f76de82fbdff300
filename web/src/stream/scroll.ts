/**
 * The one owner of the scroll position: at the end while the reader is there, where the reader put it
 * otherwise.
 *
 * A scroll event says nothing of who caused it. Position does: what we wrote is at the end, so a position
 * further up is the reader's.
 */

/** Up this far and it was meant. */
const DRIFT_PX = 3
/** Down to this far from the end and it is meant to follow again. */
const NEAR_PX = 24

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
  // Content that shrinks pushes the position up, and nobody scrolled.
  const isPushed = content < pin.content && toEnd <= DRIFT_PX
  if (isUp && !isPushed) return { follows: false, top, content }
  const isBack = top >= pin.top && toEnd <= NEAR_PX
  return { follows: pin.follows || isBack, top, content }
}

export interface Stick {
  /** Go to the end and follow it. */
  readonly toEnd: () => void
  readonly destroy: () => void
}

/** Keep `scroller` at its end while `content` grows. `onChange` hears whether it follows. */
export function stick(
  scroller: HTMLElement,
  content: HTMLElement,
  onChange: (follows: boolean) => void,
): Stick {
  let pin: Pin = { follows: true, top: 0, content: 0 }
  const set = (next: Pin): void => {
    if (next.follows !== pin.follows) onChange(next.follows)
    pin = next
  }
  const toEnd = (): void => {
    scroller.scrollTop = scroller.scrollHeight
    set({ follows: true, top: scroller.scrollTop, content: scroller.scrollHeight })
  }
  const left = new AbortController()
  const options = { passive: true, signal: left.signal }
  scroller.addEventListener('scroll', () => set(scrolled(pin, positionOf(scroller))), options)
  // A wheel turned up is meant from its first notch, however little a smooth scroll has moved by then.
  scroller.addEventListener(
    'wheel',
    ({ deltaY }) => {
      if (deltaY < 0 && scroller.scrollTop > 0) set({ ...pin, follows: false })
    },
    options,
  )
  const watch = new ResizeObserver(() => {
    if (pin.follows) toEnd()
    else set({ ...pin, content: scroller.scrollHeight })
  })
  watch.observe(content)
  watch.observe(scroller)
  return {
    toEnd,
    destroy: () => {
      left.abort()
      watch.disconnect()
    },
  }
}

function positionOf(scroller: HTMLElement): Position {
  return {
    top: scroller.scrollTop,
    view: scroller.clientHeight,
    content: scroller.scrollHeight,
  }
}
