import { expect, test } from 'vitest'
import { attach, FILES_MAX_BYTES, insert } from './attach.ts'

function file(name: string, ...parts: BlobPart[]): File {
  return new File(parts, name)
}

test('a file is a fence under its name', async () => {
  const { text, refused } = await attach([file('a.py', 'one\r\ntwo\rthree'), file('Makefile', '')])
  expect(text).toBe('a.py:\n\n```py\none\ntwo\nthree\n```\n\nMakefile:\n\n```\n```')
  expect(refused).toEqual([])
})

test('no fence in a file ends its own', async () => {
  const { text } = await attach([file('a.md', '`````\nx\n`````\n')])
  expect(text).toBe('a.md:\n\n``````md\n`````\nx\n`````\n``````')
})

test('a name stays in its line', async () => {
  expect((await attach([file('a\n```\nb.txt', 'x')])).text).toMatch(/^a ``` b\.txt:\n\n```txt\n/)
})

test('UTF-8 and marked UTF-16 are read, with or without a mark', async () => {
  const utf16 = new Uint8Array([0xff, 0xfe, 0x60, 0x4f, 0x7d, 0x59])
  const marked = new Uint8Array([0xef, 0xbb, 0xbf, 0x61])
  const { text } = await attach([file('a', '你好'), file('b', utf16), file('c', marked)])
  expect(text.match(/```\n(.*)\n```/g)).toEqual(['```\n你好\n```', '```\n你好\n```', '```\na\n```'])
})

test('what is no text is refused by its name, and the others are taken', async () => {
  const { text, refused } = await attach([
    file('gbk.txt', new Uint8Array([0xc4, 0xe3, 0xba, 0xc3])),
    file('nul.bin', 'a\0b'),
    file('good.txt', 'good'),
    file('bell.bin', 'a\x07b'),
  ])
  expect(text).toContain('good')
  expect(refused.map(({ name, why }) => `${name} ${why}`)).toEqual([
    'gbk.txt notText',
    'nul.bin notText',
    'bell.bin notText',
  ])
})

test('files share one bound', async () => {
  const half = 'x'.repeat(FILES_MAX_BYTES / 2)
  const { refused } = await attach([
    file('a', half),
    file('b', half, 'x'),
    file('c', half),
    file('d', 'x'),
  ])
  expect(refused).toEqual([
    { name: 'b', why: 'tooLarge' },
    { name: 'd', why: 'tooLarge' },
  ])
})

test('what cannot be read is said', async () => {
  const folder = file('folder')
  folder.arrayBuffer = () => Promise.reject(new DOMException('', 'NotFoundError'))
  expect((await attach([folder])).refused).toEqual([{ name: 'folder', why: 'unreadable' }])
})

test.each([
  ['', 0, 0, 'B\n\n', 3],
  ['before', 6, 6, 'before\n\nB\n\n', 11],
  ['before after', 7, 7, 'before\n\nB\n\nafter', 11],
  ['a selected b', 2, 10, 'a\n\nB\n\nb', 6],
] as const)('a block stands by itself in %j', (draft, start, end, text, caret) => {
  expect(insert(draft, [start, end], 'B')).toEqual({ text, caret })
})
