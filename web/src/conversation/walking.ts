/** Walking between branches on the page. */
import { tick } from 'svelte'
import type { Message } from '../stream/wire.ts'
import { controlOf } from './places.ts'

/**
 * Show `to` in the place of `from` and keep what was pressed under the finger, with the focus on it, whatever the
 * other branch looks like.
 */
export async function walk(
  list: HTMLElement,
  [from, to]: readonly [Message, Message],
  step: -1 | 1,
  show: (message: Message) => void,
): Promise<void> {
  const pressed = `[data-step="${step}"]`
  const before = controlOf(list, from.id, pressed)?.getBoundingClientRect().top ?? 0
  show(to)
  await tick()
  const control = controlOf(list, to.id, pressed)
  const scroller = list.closest('main')
  if (!control || !scroller) return
  control.focus({ preventScroll: true })
  scroller.scrollTop += control.getBoundingClientRect().top - before
}
