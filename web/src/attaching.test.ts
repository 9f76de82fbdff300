import { beforeEach, expect, test } from 'vitest'
import { Attaching } from './attaching.svelte.ts'

let taken: string[]
let prevented: number
let attaching: Attaching

beforeEach(() => {
  taken = []
  prevented = 0
  attaching = new Attaching((block) => taken.push(block))
})

const NOTES = new File(['ink'], 'notes.txt')
const PICTURE = new File([new Uint8Array([0x89, 0x50, 0, 0xff])], 'picture.png')
const preventDefault = (): void => void (prevented += 1)

function carrying(types: readonly string[], files: readonly File[]): DataTransfer {
  return { types, files } as unknown as DataTransfer
}

function drag(
  type: string,
  dataTransfer: DataTransfer,
  relatedTarget: EventTarget | null = null,
): Promise<void> {
  return attaching.drag({ type, dataTransfer, relatedTarget, preventDefault })
}

test('a file above the page is announced, and taken where it is let go', async () => {
  const files = carrying(['Files'], [NOTES])
  await drag('dragover', files)
  expect([attaching.isOver, taken]).toEqual([true, []])
  await drag('drop', files)
  expect([attaching.isOver, taken]).toEqual([false, ['notes.txt:\n\n```txt\nink\n```']])
  expect(prevented).toBe(2)
})

test('a file that leaves the page is announced no more; one that passes over it is', async () => {
  const files = carrying(['Files'], [NOTES])
  await drag('dragover', files)
  const within = { type: 'dragleave', dataTransfer: files, preventDefault }
  attaching.leave({ ...within, relatedTarget: new EventTarget() })
  expect(attaching.isOver).toBe(true)
  attaching.leave({ ...within, relatedTarget: null })
  expect(attaching.isOver).toBe(false)
})

test('what is dragged and is no file is left to the browser', async () => {
  await drag('dragover', carrying(['text/plain'], []))
  expect([attaching.isOver, prevented]).toEqual([false, 0])
})

test('pasted files are taken, but for those that come beside the same as text', async () => {
  await attaching.paste({
    clipboardData: carrying(['text/plain', 'Files'], [PICTURE]),
    preventDefault,
  })
  await attaching.paste({ clipboardData: carrying(['text/plain'], []), preventDefault })
  expect([taken, prevented, attaching.refused]).toEqual([[], 0, []])
  await attaching.paste({ clipboardData: carrying(['Files'], [NOTES]), preventDefault })
  expect([taken.length, prevented]).toEqual([1, 1])
})

test('what was refused is said until something else is taken, or the reader has read it', async () => {
  await attaching.add([PICTURE, NOTES])
  expect(attaching.refused).toEqual([{ name: 'picture.png', why: 'notText' }])
  expect(taken).toHaveLength(1)
  await attaching.add([NOTES])
  expect(attaching.refused).toEqual([])
  await attaching.add([PICTURE])
  attaching.forget()
  expect(attaching.refused).toEqual([])
})
