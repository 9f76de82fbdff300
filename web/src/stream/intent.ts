/**
 * What a reader does to go somewhere, told at its beginning: a smooth scroll moves a pixel in its first
 * frame, and a page that follows would take it back before position told anything.
 */

/**
 * `up`: away from the end, or to hold on to something. `down`: towards it. `end`: back to it. `press`: a mouse button
 * or a finger is down on the text, for a click, a selection or a drag. `release`: none is, and perhaps none was.
 */
export type Intent = 'up' | 'down' | 'end' | 'press' | 'release'

const KEYS: Readonly<Record<string, Intent>> = {
  ArrowUp: 'up',
  PageUp: 'up',
  Home: 'up',
  ArrowDown: 'down',
  PageDown: 'down',
  ' ': 'down',
  End: 'end',
}
/** A menu that is opened, or a drag that begins, swallows the end of a press. */
const RELEASES = ['pointerup', 'pointercancel', 'contextmenu', 'dragstart'] as const
/** A finger that moves less far is resting. */
const FINGER_PX = 3

/** Tell `onIntent` until `signal` is aborted. */
export function onIntent(
  scroller: HTMLElement,
  content: HTMLElement,
  signal: AbortSignal,
  tell: (intent: Intent) => void,
): void {
  const options = { passive: true, signal }
  const page = scroller.ownerDocument
  let fingerAt = 0
  // With Ctrl it zooms.
  const wheel = ({ deltaY, ctrlKey }: WheelEvent): void => {
    if (deltaY !== 0 && !ctrlKey) tell(deltaY < 0 ? 'up' : 'down')
  }
  const touch = ({ touches }: TouchEvent): void => void (fingerAt = touches[0]?.clientY ?? 0)
  const drag = ({ touches }: TouchEvent): void => {
    const moved = (touches[0]?.clientY ?? fingerAt) - fingerAt
    if (Math.abs(moved) > FINGER_PX) tell(moved > 0 ? 'up' : 'down')
  }
  const key = (event: KeyboardEvent): void => {
    const intent = event.key === ' ' && event.shiftKey ? 'up' : KEYS[event.key]
    if (intent && !event.defaultPrevented && !isForItself(event.target)) tell(intent)
  }
  const grab = (event: PointerEvent): void => {
    if (event.target === scroller && event.offsetX >= scroller.clientWidth) tell('up')
  }
  const press = ({ button }: PointerEvent): void => {
    if (button === 0) tell('press')
  }
  const focus = ({ target }: FocusEvent): void => {
    if (target instanceof Element && target.matches(':focus-visible')) tell('up')
  }
  const select = (): void => {
    const selection = page.getSelection()
    if (selection?.type === 'Range' && content.contains(selection.anchorNode)) tell('up')
  }
  scroller.addEventListener('wheel', wheel, options)
  scroller.addEventListener('touchstart', touch, options)
  scroller.addEventListener('touchmove', drag, options)
  scroller.addEventListener('pointerdown', grab, options)
  content.addEventListener('pointerdown', press, options)
  for (const name of RELEASES) page.addEventListener(name, () => tell('release'), options)
  content.addEventListener('focusin', focus, options)
  page.addEventListener('keydown', key, options)
  page.addEventListener('selectionchange', select, options)
}

/** Whether an element uses the arrow and page keys for its own. */
function isForItself(target: EventTarget | null): boolean {
  return (
    target instanceof HTMLElement &&
    (target.isContentEditable || target.matches('input, textarea, select, dialog *, [role=menu] *'))
  )
}
