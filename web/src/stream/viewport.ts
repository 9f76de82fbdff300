/**
 * Keeps the page above the on-screen keyboard, where the browser lays it over the page instead of making
 * room (iOS).
 */

/** Less than this is an address bar that comes and goes, and no keyboard. */
const KEYBOARD_PX = 120

/** Give `root` the height that can be seen while a keyboard covers the rest, until `signal` is aborted. */
export function fitAboveKeyboard(root: HTMLElement, window: Window, signal: AbortSignal): void {
  const { visualViewport } = window
  if (!visualViewport) return
  const fit = (): void => {
    // A page that is zoomed into is looked at in parts, whatever its height.
    if (visualViewport.scale !== 1) return
    const isCovered = window.innerHeight - visualViewport.height > KEYBOARD_PX
    root.style.height = isCovered ? `${visualViewport.height}px` : ''
    // The browser has scrolled the page below the keyboard to show the field.
    if (isCovered) window.scrollTo(0, 0)
  }
  visualViewport.addEventListener('resize', fit, { signal })
}
