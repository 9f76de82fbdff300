/** Blocks that hold blocks, while they are open. */
import { push, type Chunks } from './chunks.ts'
import type { Cursor } from './line.ts'
import { memo } from './memo.ts'
import { CODE_INDENT, type Marker } from './starts.ts'
import type { Block } from './tree.ts'

interface Holds {
  readonly blocks: Chunks<Block>
  /** A blank line was the last one: if another block follows, the list around is loose. */
  readonly hasGap: boolean
}

export type Container = Holds &
  (
    | { readonly type: 'answer' }
    | { readonly type: 'quote' }
    | { readonly type: 'list'; readonly marker: Marker; readonly isTight: boolean }
    | {
        readonly type: 'item'
        /** Columns that its lines are indented by. */
        readonly indent: number
        readonly isChecked: boolean | null
      }
    | { readonly type: 'footnote'; readonly label: string }
  )

export const EMPTY: Holds = { blocks: [], hasGap: false }

/** Whether the line belongs into the container; what marks it as belonging there is passed. */
export function goesOn(container: Container, isEmpty: boolean, cursor: Cursor): boolean {
  switch (container.type) {
    case 'answer':
    case 'list':
      return true
    case 'quote':
      return passQuoteMark(cursor)
    case 'item':
      return cursor.isBlank ? passBlank(cursor, !isEmpty) : passColumns(cursor, container.indent)
    case 'footnote':
      return cursor.isBlank || passColumns(cursor, CODE_INDENT)
  }
}

export function passQuoteMark(cursor: Cursor): boolean {
  if (cursor.indent >= CODE_INDENT || cursor.content[0] !== '>') return false
  cursor.passIndent()
  cursor.pass(1)
  cursor.passColumns(1)
  return true
}

/** An item may begin with one blank line, not with two. */
function passBlank(cursor: Cursor, belongs: boolean): boolean {
  if (belongs) cursor.passIndent()
  return belongs
}

function passColumns(cursor: Cursor, columns: number): boolean {
  if (cursor.indent < columns) return false
  cursor.passColumns(columns)
  return true
}

/** Behind a blank line: it counts for what was opened inside of the last quote. */
export function withGaps(stack: readonly Container[]): readonly Container[] {
  const from = stack.findLastIndex(({ type }) => type === 'quote') + 1
  return stack.map((container, at) => (at < from ? container : { ...container, hasGap: true }))
}

export function withoutGaps(stack: readonly Container[]): readonly Container[] {
  if (!stack.some(({ hasGap }) => hasGap)) return stack
  return stack.map((container) => ({ ...container, hasGap: false }))
}

/** A blank line between two items, or inside of one between two blocks, makes a list loose. */
export function loosened(stack: readonly Container[]): readonly Container[] {
  const at = stack.length - (stack.at(-1)?.type === 'item' ? 2 : 1)
  const list = stack[at]
  return list?.type === 'list' ? stack.with(at, { ...list, isTight: false }) : stack
}

/** The container with a block more. */
export function add(container: Container, block: Block): Container {
  const last = lastAdded(container)
  if (last.block !== block) {
    last.block = block
    last.result = { ...container, blocks: push(container.blocks, block) }
  }
  return last.result
}

const lastAdded = memo((container: Container) => ({
  block: null as Block | null,
  result: container,
}))

/** `null` for the answer itself. */
export const blockOf = memo((container: Container): Block | null => {
  const { blocks } = container
  switch (container.type) {
    case 'answer':
      return null
    case 'quote':
      return { type: 'quote', blocks }
    case 'list': {
      const { marker, isTight } = container
      return { type: 'list', start: marker.start, isTight, items: blocks }
    }
    case 'item':
      return { type: 'item', isChecked: container.isChecked, blocks }
    case 'footnote':
      return { type: 'footnote', label: container.label, blocks }
  }
})
