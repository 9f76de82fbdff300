import { expect, test } from 'vitest'
import { scrolled, type Pin, type Position } from './scroll.ts'

const atEnd: Pin = { follows: true, top: 400, content: 1000 }

function at(top: number, content = 1000): Position {
  return { top, view: 600, content }
}

test('our own write changes nothing', () => {
  expect(scrolled(atEnd, at(400)).follows).toBe(true)
})

test('the reader scrolls up and is left there while the text grows', () => {
  const up = scrolled(atEnd, at(300))
  expect(up.follows).toBe(false)
  expect(scrolled(up, at(300, 5000)).follows).toBe(false)
})

test('a hair of drift is not meant', () => {
  expect(scrolled(atEnd, at(398)).follows).toBe(true)
})

test('text that grew before our write does not look like scrolling up', () => {
  expect(scrolled(atEnd, at(400, 1300)).follows).toBe(true)
})

test('content that shrinks under the view does not unpin', () => {
  expect(scrolled(atEnd, at(300, 900)).follows).toBe(true)
})

test('content that has shrunk and grown again does not unpin', () => {
  expect(scrolled(atEnd, at(200, 900)).follows).toBe(true)
})

test('coming back down to the end follows again', () => {
  const up = scrolled(atEnd, at(100))
  expect(scrolled(up, at(300)).follows).toBe(false)
  expect(scrolled(up, at(390)).follows).toBe(true)
})

test('who comes to what was the end when they set out follows again', () => {
  const up = scrolled(atEnd, at(100))
  expect(scrolled(up, at(400, 1300)).follows).toBe(false)
  expect(scrolled(up, at(390, 1300), 1000).follows).toBe(true)
  expect(scrolled(up, at(300, 1300), 1000).follows).toBe(false)
})

test('going up near the end does not follow', () => {
  const up = scrolled(atEnd, at(390))
  expect(up.follows).toBe(false)
  expect(scrolled(up, at(380)).follows).toBe(false)
})

test('who holds on to something at the end is left there when the text grows', () => {
  const held: Pin = { ...atEnd, follows: false }
  expect(scrolled(held, at(400)).follows).toBe(false)
  expect(scrolled(held, at(400, 1010)).follows).toBe(false)
})
