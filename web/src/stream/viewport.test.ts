import { expect, test } from 'vitest'
import { fitAboveKeyboard } from './viewport.ts'

/** As much of a window as decides where the keyboard is. */
function windowOf(innerHeight: number): {
  window: Window
  scrolls: number[]
  see: (height: number, scale?: number) => void
} {
  const visualViewport = Object.assign(new EventTarget(), { height: innerHeight, scale: 1 })
  const scrolls: number[] = []
  const window = {
    innerHeight,
    visualViewport,
    scrollTo: (_x: number, y: number) => scrolls.push(y),
  }
  const see = (height: number, scale = 1): void => {
    Object.assign(visualViewport, { height, scale })
    visualViewport.dispatchEvent(new Event('resize'))
  }
  return { window: window as unknown as Window, scrolls, see }
}

test('a keyboard that covers the page makes it smaller, and it grows back', () => {
  const root = { style: { height: '' } } as HTMLElement
  const { window, scrolls, see } = windowOf(800)
  const left = new AbortController()
  fitAboveKeyboard(root, window, left.signal)
  see(460)
  expect(root.style.height).toBe('460px')
  expect(scrolls).toEqual([0])
  see(800)
  expect(root.style.height).toBe('')
  left.abort()
  see(460)
  expect(root.style.height).toBe('')
})

test('neither an address bar nor a zoom is a keyboard', () => {
  const root = { style: { height: '' } } as HTMLElement
  const { window, see } = windowOf(800)
  fitAboveKeyboard(root, window, new AbortController().signal)
  see(740)
  see(400, 2)
  expect(root.style.height).toBe('')
})
