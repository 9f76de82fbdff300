/** GFM's tables: a row of heads, a row that tells the columns, rows. */
import type { Align } from './tree.ts'

const COLUMNS = /^\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*$/
const ALIGNS: readonly (readonly [boolean, boolean, Align])[] = [
  [true, true, 'center'],
  [true, false, 'left'],
  [false, true, 'right'],
  [false, false, null],
]

/** Columns of a row like `| :-- | --: |`. One without any bar could be an underline and is none. */
export function alignsOf(line: string): readonly Align[] | null {
  if (!/[|:]/.test(line) || !COLUMNS.test(line)) return null
  return cellsOf(line).map(alignOf)
}

function alignOf(cell: string): Align {
  const [isLeft, isRight] = [cell.startsWith(':'), cell.endsWith(':')]
  return ALIGNS.find(([left, right]) => left === isLeft && right === isRight)?.[2] ?? null
}

/** Texts of the cells of a row. A bar with a backslash before it is part of a text. */
export function cellsOf(line: string): string[] {
  const trimmed = line.trim().replace(/^\|/, '')
  const cells: string[] = []
  let from = 0
  for (let at = 0; at < trimmed.length; at += 1) {
    if (trimmed[at] === '\\') at += 1
    else if (trimmed[at] === '|') {
      cells.push(cellOf(trimmed.slice(from, at)))
      from = at + 1
    }
  }
  if (trimmed.slice(from).trim() !== '') cells.push(cellOf(trimmed.slice(from)))
  return cells
}

function cellOf(written: string): string {
  return written.trim().replaceAll('\\|', '|')
}
