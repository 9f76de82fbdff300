/**
 * Keeps the focus on the page when what had it goes away: a button that has done its work, a form that was
 * sent, a list that was replaced. The browser would leave it on nothing, and the next Tab at the top.
 */

/** It goes to the closest part of the page that is still there, until `signal` is aborted. */
export function keepFocus(root: HTMLElement, signal: AbortSignal): void {
  let around: readonly HTMLElement[] = []
  const look = (): void => {
    const active = document.activeElement
    if (active === null || active === document.body) land(around)
  }
  // An element goes away with itself or with something around it: nothing else has to be watched, least of
  // all the text that streams in.
  // A frame later: what comes in its place may take the focus itself, and knows better.
  const observer = new MutationObserver(() => requestAnimationFrame(look))
  const enter = ({ target }: FocusEvent): void => {
    if (!(target instanceof HTMLElement)) return
    around = aroundOf(target, root)
    observer.disconnect()
    observer.observe(target, { attributeFilter: ['disabled', 'hidden'] })
    for (const element of around) observer.observe(element, { childList: true })
  }
  // Who takes the focus away from something that stays, by a click on nothing, means it.
  const leave = ({ target, relatedTarget }: FocusEvent): void =>
    queueMicrotask(() => {
      const isMeant = relatedTarget === null && target instanceof HTMLElement && canHave(target)
      if (isMeant) observer.disconnect()
    })
  root.addEventListener('focusin', enter, { signal })
  root.addEventListener('focusout', leave, { signal })
  signal.addEventListener('abort', () => observer.disconnect())
}

function canHave(element: HTMLElement): boolean {
  return element.isConnected && !element.matches(':disabled')
}

/** What an element stands in, from the inside out, up to `root`. */
function aroundOf(element: HTMLElement, root: HTMLElement): readonly HTMLElement[] {
  const parent = element === root ? null : element.parentElement
  return parent === null ? [] : [parent, ...aroundOf(parent, root)]
}

function land(around: readonly HTMLElement[]): void {
  const there = around.find((element) => element.isConnected)
  if (there === undefined) return
  // It can be focused by the page, and is no stop for the Tab key.
  if (!there.hasAttribute('tabindex')) there.tabIndex = -1
  there.focus({ preventScroll: true })
}
