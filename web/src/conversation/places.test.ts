// @vitest-environment jsdom
import { beforeEach, expect, test, vi } from 'vitest'
import { controlOf, lastQuestion, placeOf } from './places.ts'

const content = document.createElement('div')

beforeEach(() => {
  // jsdom has none, and these ids need no escapes.
  vi.stubGlobal('CSS', { escape: (id: string) => id })
  content.innerHTML = `
    <div class="transcript">
      <div class="row" data-message="q1"><div class="question" id="first"></div></div>
      <div class="row" data-message="a1"><article class="answer" id="answer"></article></div>
      <div class="row" data-message="q2"><div class="question" id="second"><button class="edit"></button></div></div>
      <div class="row" data-message="a2"><article class="answer"></article></div>
      <div class="row" data-message="w"><div class="question waiting"></div></div>
    </div>`
})

test('the last question is the last that was asked, and none that waits', () => {
  expect(lastQuestion(content)?.id).toBe('second')
})

test('where nothing was asked there is no last question', () => {
  content.innerHTML = ''
  expect(lastQuestion(content)).toBeNull()
})

test('a message is found as what it is, and what belongs to it within it', () => {
  expect(placeOf(content, 'q1')?.id).toBe('first')
  expect(placeOf(content, 'a1')?.id).toBe('answer')
  expect(placeOf(content, 'gone')).toBeNull()
  expect(controlOf(content, 'q2', '.edit')?.tagName).toBe('BUTTON')
  expect(controlOf(content, 'q1', '.edit')).toBeNull()
})
