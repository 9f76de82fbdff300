/**
 * Parts of an answer that are far from view are skipped by the browser, and what is drawn by scripts can be given
 * up there as well.
 */

/** An element whose contents are skipped while they are out of sight has this class. */
const PART = '.part'

/** Tell whether the part that `element` stands in is skipped, whenever that changes, until the function returned is called. */
export function watchSkipped(element: Element, tell: (isSkipped: boolean) => void): () => void {
  const left = new AbortController()
  const change = (event: Event): void => {
    if ('skipped' in event) tell(event.skipped === true)
  }
  const part = element.closest(PART)
  part?.addEventListener('contentvisibilityautostatechange', change, { signal: left.signal })
  return () => left.abort()
}
