/** Lead the reader to something on the page: into view, with the focus, and marked for a moment. */
export function pointOut(element: HTMLElement): void {
  element.tabIndex = -1
  element.focus({ preventScroll: true })
  element.style.scrollMarginTop = '1rem'
  element.scrollIntoView({ block: 'start' })
  const mark = getComputedStyle(element).getPropertyValue('--seal-wash')
  element.animate([{ backgroundColor: mark, boxShadow: `0 0 0 0.5rem ${mark}` }, {}], {
    duration: 2_000,
    easing: 'ease-in',
  })
}
