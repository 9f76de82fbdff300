/** A selection lives in nodes: where they are replaced, it goes. */

/** After any of these a selection may have gone. */
const RELEASES = ['pointerup', 'pointercancel', 'dragend'] as const

/** Whether a selection begins or ends in the element, or is about to: a button is down on it. */
export function isSelectedIn(element: Element): boolean {
  if (element.matches(':active')) return true
  const selection = element.ownerDocument.getSelection()
  if (selection?.type !== 'Range') return false
  return element.contains(selection.anchorNode) || element.contains(selection.focusNode)
}

/** Tell `onGone` that a selection may have gone, until `signal` is aborted. */
export function watchSelection(page: Document, signal: AbortSignal, onGone: () => void): void {
  // Some browsers let go of what was pressed behind the events that say so.
  const soon = (): void => {
    requestAnimationFrame(() => {
      if (!signal.aborted) onGone()
    })
  }
  page.addEventListener('selectionchange', soon, { signal })
  for (const name of RELEASES) page.addEventListener(name, soon, { signal })
}
