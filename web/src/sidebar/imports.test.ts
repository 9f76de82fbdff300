import { expect, test } from 'vitest'
import { Api, ApiError } from '../api.ts'
import { FakeWorld } from '../stream/world.fake.ts'
import { chat } from './chats.fake.ts'
import { Imports } from './imports.svelte.ts'
import { partsOf } from './parts.ts'

type Document = { chats: { title: string }[]; format: string; version: number }

const titles = Array.from({ length: 50 }, (_, n) => `对话 ${n} ${'x'.repeat((n * 37) % 300)}`)

function bytes(text: string): number {
  return new TextEncoder().encode(text).length
}

function codeOf(text: string, most: number): string {
  try {
    partsOf(text, most)
  } catch (error) {
    if (error instanceof ApiError) return error.code
    throw error
  }
  return ''
}

test('a document that is small enough goes as it is', () => {
  const text = ' [ {"mapping": {}} ] '
  expect(partsOf(text, 1_000)).toEqual([text])
})

test.each([1_000, 2_000, 5_000])('one of ours is cut into parts of %d bytes, in order', (most) => {
  const chats = titles.map((title) => ({ title }))
  const text = JSON.stringify({ format: 'inkstream', version: 1, exported_at: 1, chats })
  const parts = partsOf(text, most)
  expect(parts.length).toBeGreaterThan(1)
  for (const part of parts) expect(bytes(part)).toBeLessThanOrEqual(most)
  const documents = parts.map((part) => JSON.parse(part) as Document)
  expect(documents.flatMap(({ chats }) => chats.map(({ title }) => title))).toEqual(titles)
  for (const { format, version } of documents) expect([format, version]).toEqual(['inkstream', 1])
})

test('a list of others is cut into lists', () => {
  const parts = partsOf(JSON.stringify(titles), 1_000)
  expect(parts.length).toBeGreaterThan(1)
  expect(parts.flatMap((part) => JSON.parse(part) as string[])).toEqual(titles)
})

test('what cannot be cut is refused before it is sent', () => {
  expect(codeOf('{"chats": [', 1_000)).toBe('bad_json')
  expect(codeOf(JSON.stringify(['x'.repeat(2_000)]), 1_000)).toBe('body_too_large')
  expect(codeOf(JSON.stringify({ a: 'x'.repeat(2_000) }), 1_000)).toBe('body_too_large')
})

/** A server that takes so many requests and then refuses. */
function importing(takes: number): { imports: Imports; bodies: string[] } {
  const bodies: string[] = []
  const world = new FakeWorld((_id, { body }, url) => {
    if (url.endsWith('status')) return Response.json({ limits: { body_kib: 1 } })
    bodies.push(String(body))
    if (bodies.length > takes) {
      return Response.json({ error: { code: 'bad_import', message: 'why' } }, { status: 400 })
    }
    const skipped = [{ path: 'x', reason: 'y' }]
    return Response.json({ chats: [chat('a', 1)], known: [chat('b', 1)], skipped })
  })
  return { imports: new Imports(new Api(world, 'http://server/api/')), bodies }
}

test('files come in one after the other, each with its report', async () => {
  const { imports, bodies } = importing(10)
  const files = [new File(['[1]'], 'one.json'), new File(['[2]'], 'two.json')]
  const done = imports.take(files)
  await imports.take([new File(['[3]'], 'meanwhile.json')])
  await done
  expect(bodies).toEqual(['[1]', '[2]'])
  expect(imports.reports.map(({ name, added, known }) => [name, added, known])).toEqual([
    ['one.json', 1, 1],
    ['two.json', 1, 1],
  ])
  expect(imports.isBusy).toBe(false)
})

test('a file that breaks off in the middle says how far it came', async () => {
  const { imports } = importing(2)
  await imports.take([new File([JSON.stringify(titles)], 'large.json')])
  const [report] = imports.reports
  expect(report).toMatchObject({ added: 2, known: 2, problem: { code: 'bad_import' } })
  expect(report?.skipped).toHaveLength(2)
})
