// @vitest-environment jsdom
import { beforeEach, expect, test, vi } from 'vitest'
import type { Kind, Tokens } from '../highlight/tokens.ts'
import { pushAll, type Chunks } from '../stream/markdown/chunks.ts'
import { CodeLines } from './lines.ts'

let place: HTMLElement
let code: CodeLines
let frames: (() => void)[]

beforeEach(() => {
  frames = []
  vi.stubGlobal('requestAnimationFrame', (frame: () => void) => frames.push(frame))
  vi.stubGlobal('cancelAnimationFrame', (id: number) => (frames[id - 1] = () => {}))
  place = document.createElement('code')
  document.body.replaceChildren(place)
  code = new CodeLines(place)
})

function linesOf(text: string): Chunks<string> {
  return pushAll([], text.split('\n'))
}

/** Each of these words, wherever it stands. */
function tokens(lines: Chunks<string>, word: string, kind: Kind): Tokens {
  const places = lines
    .flat()
    .flatMap((line, at) =>
      [...line.matchAll(new RegExp(word, 'g'))].map(({ index }) => [
        at,
        index,
        index + word.length,
      ]),
    )
  return { id: 1, places: new Uint32Array(places.flat()), kinds: places.map(() => kind) }
}

function coloured(): readonly string[] {
  return [...place.querySelectorAll('span[class]')].map(
    (span) => `${span.className}:${span.textContent}`,
  )
}

test('what stands there is the code, whatever is in it', () => {
  code.become(linesOf('if a < b:\n\n    return "<b>"'))
  expect(place.textContent).toBe('if a < b:\n\n    return "<b>"\n')
})

test('a line that grows is added to: its node and a selection in it stay', () => {
  code.become(linesOf('let a'))
  const text = place.firstChild?.firstChild
  document.getSelection()?.setBaseAndExtent(text ?? place, 0, text ?? place, 3)
  code.become(linesOf('let a = 1\nlet b'))
  expect(place.firstChild?.firstChild).toBe(text)
  expect(document.getSelection()?.toString()).toBe('let')
  expect(place.textContent).toBe('let a = 1\nlet b\n')
})

test('lines that are settled are not touched by what comes', () => {
  const lines = linesOf(Array.from({ length: 8 }, (_, at) => `line ${at}`).join('\n'))
  code.become(lines)
  const settled = place.firstChild
  const html = place.innerHTML
  code.become(pushAll(lines, ['more', 'and more']))
  expect(place.firstChild).toBe(settled)
  expect(place.innerHTML.startsWith(html)).toBe(true)
  expect(place.textContent.endsWith('line 7\nmore\nand more\n')).toBe(true)
})

test('lines that are taken back go', () => {
  const lines = linesOf(Array.from({ length: 9 }, (_, at) => `${at}`).join('\n'))
  code.become(lines)
  code.become(lines.slice(0, 1))
  expect(place.textContent).toBe('0\n1\n2\n3\n4\n5\n6\n7\n')
})

test('colours change nothing in what stands there, in any line', () => {
  const lines = linesOf(Array.from({ length: 20 }, (_, at) => `return ${at}; return`).join('\n'))
  code.become(lines)
  const before = place.textContent
  code.colour(tokens(lines, 'return', 'keyword'), lines)
  expect(place.textContent).toBe(before)
  expect(coloured()).toEqual(Array.from({ length: 40 }, () => 'keyword:return'))
})

test('code that has grown since keeps the colours of what it was', () => {
  const lines = linesOf('return 1')
  code.become(linesOf('return 1 + 2'))
  code.colour(tokens(lines, 'return', 'keyword'), lines)
  expect(coloured()).toEqual(['keyword:return'])
  expect(place.textContent).toBe('return 1 + 2\n')
  code.become(linesOf('return 1 + 2 + 3'))
  expect(coloured()).toEqual(['keyword:return'])
  expect(place.textContent).toBe('return 1 + 2 + 3\n')
})

test('colours for something that stands there no more are passed over', () => {
  const lines = linesOf('return 1')
  code.become(linesOf('x = 1'))
  code.colour(tokens(lines, 'return', 'keyword'), lines)
  expect(coloured()).toEqual([])
  expect(place.textContent).toBe('x = 1\n')
})

test('the same colours again leave what is there alone', () => {
  const lines = linesOf('return 1')
  code.become(lines)
  code.colour(tokens(lines, 'return', 'keyword'), lines)
  const span = place.querySelector('.keyword')
  code.colour(tokens(lines, 'return', 'keyword'), lines)
  expect(place.querySelector('.keyword')).toBe(span)
})

test('long code is coloured a piece per frame, and what is called off stops', () => {
  const lines = linesOf(Array.from({ length: 50 * 8 }, () => 'return').join('\n'))
  code.become(lines)
  code.colour(tokens(lines, 'return', 'keyword'), lines)
  expect(coloured()).toHaveLength(40 * 8)
  frames[0]?.()
  expect(coloured()).toHaveLength(50 * 8)
  code.colour(tokens(lines, 'return', 'string'), lines)
  code.destroy()
  frames.at(-1)?.()
  expect(coloured().filter((span) => span.startsWith('string'))).toHaveLength(40 * 8)
})

/** Select the first characters of a chunk. */
function select(chunk: number, length: number): string {
  const text = place.children[chunk]?.firstChild ?? place
  document.getSelection()?.setBaseAndExtent(text, 0, text, length)
  return document.getSelection()?.toString() ?? ''
}

function nextFrame(): void {
  frames.splice(0).forEach((frame) => frame())
}

/** jsdom tells of a changed selection later; a browser has told before the next frame. */
async function selectNothing(): Promise<void> {
  const told = new Promise((done) =>
    document.addEventListener('selectionchange', done, { once: true }),
  )
  document.getSelection()?.removeAllRanges()
  await told
  nextFrame()
}

test('a chunk in which something is selected is coloured when it is not any more', async () => {
  const lines = linesOf(Array.from({ length: 12 }, (_, at) => `return ${at}`).join('\n'))
  code.become(lines)
  expect(select(0, 6)).toBe('return')
  code.colour(tokens(lines, 'return', 'keyword'), lines)
  expect(document.getSelection()?.toString()).toBe('return')
  expect(coloured()).toHaveLength(4)
  await selectNothing()
  expect(coloured()).toHaveLength(12)
})

test('of the colours that a selection holds off only the last ones come', async () => {
  const lines = linesOf('return 1')
  code.become(lines)
  select(0, 3)
  code.colour(tokens(lines, 'return', 'string'), lines)
  code.become(linesOf('return 1 + 2'))
  code.colour(tokens(lines, 'return', 'keyword'), lines)
  expect(coloured()).toEqual([])
  await selectNothing()
  expect(coloured()).toEqual(['keyword:return'])
  expect(place.textContent).toBe('return 1 + 2\n')
})

test('what is selected past both ends of a chunk does not hold it', () => {
  const lines = linesOf(Array.from({ length: 24 }, (_, at) => `return ${at}`).join('\n'))
  code.become(lines)
  const [first, last] = [place.children[0]?.firstChild, place.children[2]?.firstChild]
  document.getSelection()?.setBaseAndExtent(first ?? place, 2, last ?? place, 4)
  const selected = document.getSelection()?.toString()
  code.colour(tokens(lines, 'return', 'keyword'), lines)
  expect(coloured()).toHaveLength(8)
  expect(document.getSelection()?.toString()).toBe(selected)
})

test('code that is gone is not coloured when its selection is', async () => {
  const lines = linesOf('return 1')
  code.become(lines)
  select(0, 3)
  code.colour(tokens(lines, 'return', 'keyword'), lines)
  code.destroy()
  await selectNothing()
  expect(coloured()).toEqual([])
})
