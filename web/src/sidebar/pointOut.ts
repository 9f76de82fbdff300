const MARKED_MS = 2_000

/** Give something on the page the focus, and mark it for a moment. */
export function pointOut(element: HTMLElement): void {
  element.tabIndex = -1
  element.focus({ preventScroll: true })
  const mark = getComputedStyle(element).getPropertyValue('--seal-wash')
  const marked = { backgroundColor: mark, boxShadow: `0 0 0 0.5rem ${mark}` }
  element.animate([marked, {}], { duration: MARKED_MS, easing: 'ease-in' })
}
