// @vitest-environment jsdom
import { beforeEach, expect, test, vi } from 'vitest'
import { pushAll } from '../stream/markdown/chunks.ts'
import { MarkdownStream } from '../stream/markdown/markdown.ts'
import type { Inline, Link } from '../stream/markdown/tree.ts'
import { InlineList } from './inlines.ts'
import type { BlockWords } from './words.ts'

const WORDS = { loadImage: (host: string) => `Load from ${host}` } as BlockWords

let place: HTMLElement
let list: InlineList

beforeEach(() => {
  place = document.createElement('p')
  document.body.replaceChildren(place)
  list = new InlineList(place, () => WORDS)
})

function show(...inlines: readonly Inline[]): void {
  list.become(pushAll([], inlines))
}

function link(href: string | null, text: string, more: Partial<Link> = {}): Link {
  return { type: 'link', href, title: '', isBare: false, children: [text], ...more }
}

/** What a paragraph becomes while its Markdown arrives character by character; gives how it looked each time. */
function arrive(markdown: string): readonly string[] {
  const stream = new MarkdownStream()
  return [...markdown].map((character) => {
    stream.append(character)
    const [block] = stream.open.flat()
    if (block?.type === 'paragraph') list.become(block.prose.parts)
    return place.innerHTML
  })
}

test('text that grows is added to: its node and a selection in it stay', () => {
  show('Ink on')
  const { firstChild: text } = place
  document.getSelection()?.setBaseAndExtent(text ?? place, 0, text ?? place, 3)
  const added = vi.spyOn(Text.prototype, 'appendData')
  show('Ink on paper')
  expect(place.firstChild).toBe(text)
  expect(added.mock.calls).toEqual([[' paper']])
  expect(document.getSelection()?.toString()).toBe('Ink')
  added.mockRestore()
})

test('text that turns out to be another one is replaced in the same node', () => {
  show('a *b')
  const { firstChild: text } = place
  show('a ', { type: 'emphasis', children: ['b'] })
  expect(place.firstChild).toBe(text)
  expect(place.innerHTML).toBe('a <em>b</em>')
})

test('a selection across emphasis survives what comes behind it', () => {
  const stream = new MarkdownStream()
  const read = (text: string): void => {
    stream.append(text)
    const [block] = stream.open.flat()
    if (block?.type === 'paragraph') list.become(block.prose.parts)
  }
  read('Quiet, **bold and ')
  const bold = place.querySelector('strong')?.firstChild
  document.getSelection()?.setBaseAndExtent(place.firstChild ?? place, 2, bold ?? place, 4)
  for (const text of ['*slanted*', '**, `code`', ' and [a link', '](https://a.example/).'])
    read(text)
  expect(document.getSelection()?.toString()).toBe('iet, bold')
  expect(place.textContent).toBe('Quiet, bold and slanted, code and a linka.example.')
})

test('what is settled is not looked at again', () => {
  const settled = Array.from({ length: 8 }, (_, at): Inline => `${at} `)
  const first = pushAll<Inline>([], settled)
  list.become(pushAll(first, ['tail']))
  const nodes = [...place.childNodes].slice(0, 8)
  const changed: MutationRecord[] = []
  const watch = new MutationObserver((records) => changed.push(...records))
  watch.observe(place, { childList: true, characterData: true, subtree: true })
  list.become(pushAll(first, ['tail grows', { type: 'break' }]))
  changed.push(...watch.takeRecords())
  expect(changed.filter(({ target }) => nodes.includes(target as ChildNode))).toEqual([])
  expect([...place.childNodes].slice(0, 8)).toEqual(nodes)
  expect(place.textContent).toBe('0 1 2 3 4 5 6 7 tail grows')
})

test('what is shorter than before leaves nothing behind', () => {
  show('a', { type: 'code', text: 'b' }, { type: 'strike', children: ['c'] })
  show('a')
  expect(place.innerHTML).toBe('a')
})

test('each kind of markup is its element', () => {
  show(
    { type: 'strong', children: ['s'] },
    { type: 'emphasis', children: [{ type: 'strike', children: ['e'] }] },
    { type: 'code', text: '<b>' },
    { type: 'footnote', label: '1' },
    { type: 'break' },
  )
  expect(place.innerHTML).toBe(
    '<strong>s</strong><em><s>e</s></em><code>&lt;b&gt;</code><sup>1</sup><br>',
  )
})

test('markup that is another kind than before takes its place', () => {
  show('a ', { type: 'strong', children: ['b'] }, ' c')
  show('a ', { type: 'emphasis', children: ['b'] }, ' c')
  expect(place.innerHTML).toBe('a <em>b</em> c')
})

test('a link leads out, in a new tab, with its host to be seen', () => {
  show(link('https://ink.example/page', 'here'))
  const anchor = place.querySelector('a')
  expect(anchor?.href).toBe('https://ink.example/page')
  expect([anchor?.target, anchor?.rel]).toEqual(['_blank', 'noopener noreferrer nofollow'])
  expect(place.textContent).toBe('hereink.example')
})

test.each([
  'javascript:alert(1)',
  'data:text/html,x',
  'vbscript:x',
  '/api/export',
  '#/c/1',
  'file:///etc/passwd',
])('an address like %s is text', (href) => {
  show(link(href, 'here'))
  expect(place.querySelector('a')).toBeNull()
  expect(place.textContent).toBe('here')
})

test('a link whose address has not arrived is text, and a link with the same words when it has', () => {
  const looks = arrive('See [the page](https://ink.example/) now')
  expect(looks.filter((html) => html.includes(']') || html.includes('(http'))).toEqual([])
  expect(place.querySelector('a')?.textContent).toBe('the page')
})

test('a link without anything to be seen shows its host', () => {
  show(link('https://ink.example/', '\u200b'))
  expect(place.querySelector('a')?.textContent).toBe('ink.example')
})

test('an address as its own text shows its host once, and leads where it has grown to', () => {
  arrive('https://ink.example/a')
  const before = place.querySelector('a')?.href
  show(link('https://ink.example/abc', 'https://ink.example/abc', { isBare: true }))
  expect(before).toBe('https://ink.example/a')
  expect(place.querySelector('a')?.href).toBe('https://ink.example/abc')
  expect(place.querySelector('.host')).toBeNull()
})

test('a host that only looks like another is shown as the network knows it', () => {
  show(link('https://еxample.org/', 'https://еxample.org/', { isBare: true }))
  expect(place.querySelector('.host')?.textContent).toBe('xn--xample-2of.org')
})

test('an image is not loaded before somebody asks for it', async () => {
  show({ type: 'image', src: 'https://pictures.example/a.png', title: '', alt: 'A' })
  expect(place.querySelector('img')).toBeNull()
  const button = place.querySelector('button')
  expect(button?.textContent.trim()).toBe('Load from pictures.example: A')
  button?.click()
  await vi.waitFor(() =>
    expect(place.querySelector('img')?.src).toBe('https://pictures.example/a.png'),
  )
  list.destroy()
})

test('what lies deeper than anybody would write is plain text', () => {
  const deep = Array.from({ length: 40 }).reduce<Inline>(
    (inner) => ({ type: 'strong', children: [inner] }),
    'core',
  )
  show(deep)
  expect(place.querySelectorAll('strong')).toHaveLength(32)
  expect(place.textContent).toBe('core')
})
