// @vitest-environment jsdom
import { flushSync } from 'svelte'
import { afterEach, beforeEach, expect, test } from 'vitest'
import type { Chunks } from '../stream/markdown/chunks.ts'
import { MarkdownStream } from '../stream/markdown/markdown.ts'
import type { Block } from '../stream/markdown/tree.ts'
import { parts } from './parts.svelte.ts'
import type { BlockWords } from './words.ts'

const WORDS = { copy: 'Copy' } as BlockWords

/** An answer on the page while it is written. */
class Sheet {
  readonly place = document.createElement('div')
  #chunks = $state.raw<Chunks<Block>>([])
  #isWhole = $state.raw(false)
  readonly #stream = new MarkdownStream()
  readonly #leave: () => void

  constructor() {
    document.body.replaceChildren(this.place)
    const attach = parts(
      () => this.#chunks,
      () => this.#isWhole,
      () => WORDS,
    )
    let detach: (() => void) | void
    const stop = $effect.root(() => void (detach = attach(this.place)))
    this.#leave = () => {
      detach?.()
      stop()
    }
  }

  write(text: string): void {
    this.#stream.append(text)
    this.#chunks = this.#stream.open
    flushSync()
  }

  end(): void {
    this.#chunks = this.#stream.whole
    this.#isWhole = true
    flushSync()
  }

  get states(): readonly string[] {
    return [...this.place.children].map(({ className }) => className)
  }

  part(at: number): HTMLElement {
    const part = this.place.children[at]
    if (!(part instanceof HTMLElement)) throw new Error(`there is no part ${at}`)
    return part
  }

  /** The browser skips a part, as it does far from view, or draws it again. */
  skip(at: number, skipped: boolean): void {
    this.part(at).dispatchEvent(
      Object.assign(new Event('contentvisibilityautostatechange'), { skipped }),
    )
    flushSync()
  }

  leave(): void {
    this.#leave()
  }
}

let sheet: Sheet

beforeEach(() => {
  sheet = new Sheet()
})

afterEach(() => {
  sheet.leave()
  expect(sheet.place.children).toHaveLength(0)
})

function paragraphs(count: number): string {
  return Array.from({ length: count }, (_, at) => `Line ${at}.\n\n`).join('')
}

function texts(part: HTMLElement): readonly string[] {
  return [...part.children].map(({ textContent }) => textContent)
}

test('eight blocks are a part; only the last part grows', () => {
  sheet.write(paragraphs(17))
  expect(sheet.states).toEqual(['part settled', 'part settled', 'part growing'])
  expect(texts(sheet.part(0))).toEqual(Array.from({ length: 8 }, (_, at) => `Line ${at}.`))
  sheet.end()
  expect(sheet.states).toEqual(['part settled', 'part settled', 'part last'])
})

test('what has been drawn stays while more comes, with a selection in it', () => {
  sheet.write(paragraphs(9))
  const lines = [...sheet.place.querySelectorAll('p')]
  const text = lines[8]?.firstChild
  document
    .getSelection()
    ?.setBaseAndExtent(lines[7]?.firstChild ?? sheet.place, 5, text ?? sheet.place, 4)
  sheet.write(paragraphs(20))
  sheet.end()
  expect([...sheet.place.querySelectorAll('p')].slice(0, 9)).toEqual(lines)
  expect(document.getSelection()?.toString()).toBe('7.Line')
})

test('a settled part that the browser skips keeps its words and its headings, and is drawn again', () => {
  sheet.write(`# Title\n\nSome **bold** words.\n\n${paragraphs(12)}`)
  expect(sheet.part(0).querySelector('strong')?.textContent).toBe('bold')
  sheet.skip(0, true)
  expect(sheet.states[0]).toBe('part settled away')
  expect(sheet.part(0).querySelector('strong')).toBeNull()
  expect(sheet.part(0).querySelector('h3')?.textContent).toBe('Title')
  expect(texts(sheet.part(0)).slice(1, 3)).toEqual(['Some bold words.', 'Line 0.'])
  expect(sheet.part(0).style.height).not.toBe('')
  sheet.skip(0, false)
  expect(sheet.states[0]).toBe('part settled')
  expect(sheet.part(0).querySelector('strong')?.textContent).toBe('bold')
  expect(sheet.part(0).style.height).toBe('')
})

test('a part that still grows is never put away', () => {
  sheet.write('Some **bold** words.')
  sheet.skip(0, true)
  expect(sheet.states).toEqual(['part growing'])
  expect(sheet.part(0).querySelector('strong')?.textContent).toBe('bold')
  sheet.write(' And more.')
  expect(sheet.part(0).textContent).toBe('Some bold words. And more.')
})

test('a definition that comes late makes links of what is drawn and of what is away', () => {
  sheet.write(`[one][ink].\n\n${paragraphs(8)}[two][ink].\n\n`)
  sheet.skip(0, true)
  sheet.write('[ink]: https://ink.example/\n')
  sheet.end()
  sheet.skip(0, false)
  const links = [...sheet.place.querySelectorAll('a')]
  expect(links.map((link) => [link.textContent, link.href])).toEqual([
    ['one', 'https://ink.example/'],
    ['two', 'https://ink.example/'],
  ])
})
