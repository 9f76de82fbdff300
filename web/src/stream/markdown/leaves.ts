/** Blocks that hold text, while they are open. */
import { push, pushAll, type Chunks } from './chunks.ts'
import type { Container } from './containers.ts'
import type { Cursor } from './line.ts'
import { memo } from './memo.ts'
import { GrowingProse, type Knowledge } from './prose.ts'
import { definitionAt, type Target } from './references.ts'
import { closingMath, CODE_INDENT, type Fence, type MathFence } from './starts.ts'
import { cellsOf } from './table.ts'
import type { Align, Block, Row } from './tree.ts'

export interface Paragraph {
  readonly type: 'paragraph'
  readonly prose: GrowingProse
  /** What came before the last line, which may turn out to be the head of a table. */
  readonly before: GrowingProse | null
  readonly lastLine: string
  /** Whether it may begin with definitions. */
  readonly mayDefine: boolean
}

export interface OpenTable {
  readonly type: 'table'
  readonly aligns: readonly Align[]
  readonly head: Row
  readonly rows: Chunks<Row>
}

interface OpenFence {
  readonly type: 'fence'
  readonly fence: Fence
  readonly lines: Chunks<string>
}

interface Indented {
  readonly type: 'indented'
  readonly lines: Chunks<string>
  /** Blank lines, which belong to it only if more follows. */
  readonly blanks: readonly string[]
}

/** A formula, if its end comes. If not, its lines are read once more from where it began. */
export interface OpenMath {
  readonly type: 'math'
  readonly closer: MathFence
  readonly tex: string
  readonly lines: Chunks<string>
  readonly outside: State
}

/** All that is open. */
export interface State {
  readonly stack: readonly Container[]
  readonly leaf: Leaf | null
}

/** Where lines are taken as they are. */
export type Code = OpenFence | Indented
export type Leaf = Paragraph | OpenTable | Code | OpenMath

/** What has become of a leaf with a line: it is open still, or closed. */
export type Taken = { readonly leaf: Leaf } | { readonly block: Block }

/** `null`: the line is not part of it. */
export function takeCode(leaf: Code, cursor: Cursor): Taken | null {
  return leaf.type === 'fence' ? takeFenced(leaf, cursor) : takeIndented(leaf, cursor)
}

function takeFenced(leaf: OpenFence, cursor: Cursor): Taken {
  const { mark, length, indent } = leaf.fence
  if (cursor.indent < CODE_INDENT && closesFence(cursor.content, mark, length))
    return { block: codeOf(leaf, false) }
  cursor.passColumns(indent)
  return { leaf: { ...leaf, lines: push(leaf.lines, cursor.rest) } }
}

function closesFence(text: string, mark: string, length: number): boolean {
  return text[0] === mark && text.startsWith(mark.repeat(length)) && isOnly(text.trimEnd(), mark)
}

/** Whether a line that has begun may become the end of the fence. */
export function mayCloseFence({ mark }: Fence, text: string): boolean {
  return text[0] === mark && isOnly(text.trimEnd(), mark)
}

function isOnly(text: string, mark: string): boolean {
  return text === mark.repeat(text.length)
}

function takeIndented(leaf: Indented, cursor: Cursor): Taken | null {
  const isBlank = cursor.isBlank
  if (!isBlank && cursor.indent < CODE_INDENT) return null
  cursor.passColumns(CODE_INDENT)
  const line = cursor.rest
  if (isBlank) return { leaf: { ...leaf, blanks: [...leaf.blanks, line] } }
  const lines = pushAll(leaf.lines, [...leaf.blanks, line])
  return { leaf: { ...leaf, lines, blanks: [] } }
}

/** What follows the end of a formula in its line is `rest`. */
export function takeMath(
  leaf: OpenMath,
  line: string,
  text: string,
): { readonly taken: Taken; readonly rest: string } {
  const end = closingMath(text, leaf.closer)
  const tex = `${leaf.tex}\n${text.slice(0, end ?? text.length)}`
  if (end === null) {
    return { taken: { leaf: { ...leaf, tex, lines: push(leaf.lines, line) } }, rest: '' }
  }
  const block: Block = { type: 'math', tex: tex.trim(), isOpen: false }
  return { taken: { block }, rest: text.slice(end + leaf.closer.length).trimStart() }
}

/** Definitions that a paragraph begins with, and where its text begins behind them. */
export function definitionsIn(source: string): {
  readonly found: ReadonlyMap<string, Target>
  readonly end: number
} {
  const found = new Map<string, Target>()
  let end = 0
  while (source[end] === '[') {
    const definition = definitionAt(source, end)
    if (definition === null) break
    if (!found.has(definition.label)) found.set(definition.label, definition.target)
    end = definition.end
  }
  return { found, end }
}

export function paragraphOf(prose: GrowingProse, line: string): Paragraph {
  const mayDefine = line.startsWith('[')
  return { type: 'paragraph', prose, before: null, lastLine: line, mayDefine }
}

export function addLine(paragraph: Paragraph, line: string, origin: string | null): Paragraph {
  const { prose } = paragraph
  const grown = prose.grow(`\n${line}`, origin)
  return { ...paragraph, prose: grown, before: prose, lastLine: line }
}

/** As many cells as there are columns: missing ones are empty, surplus ones are dropped. */
export function rowOf(
  line: string,
  columns: number,
  mode: 'whole' | 'arriving',
  knowledge: Knowledge,
): Row {
  const cells = cellsOf(line)
  return Array.from({ length: columns }, (_, index) =>
    GrowingProse.of(cells[index] ?? '', knowledge).read(
      index === cells.length - 1 ? mode : 'whole',
    ),
  )
}

/** What a leaf is when nothing more comes. */
export const closedBlock = memo((leaf: OpenTable | Code): Block =>
  leaf.type === 'table' ? leaf : codeOf(leaf, false),
)

export const closedText = memo((prose: GrowingProse): Block => ({
  type: 'paragraph',
  prose: prose.read('whole'),
}))

/** A formula that is longer than this without an end is shown as it is written. */
const FORMULA_SHOWN = 600

/** What a leaf is shown as while more may come. */
export function openBlocks(leaf: Leaf, knowledge: Knowledge): readonly Block[] {
  switch (leaf.type) {
    case 'paragraph':
      return openParagraph(leaf, knowledge)
    case 'table':
      return [leaf]
    case 'math': {
      const tex = leaf.tex.trim()
      const isFormula = tex.length <= FORMULA_SHOWN && !/\n[ \t]*\n/.test(tex)
      return [isFormula ? { type: 'math', tex, isOpen: true } : sourceOf(tex)]
    }
    default:
      return [codeOf(leaf, leaf.type === 'fence')]
  }
}

function openParagraph(paragraph: Paragraph, knowledge: Knowledge): readonly Block[] {
  const { prose, before, lastLine, mayDefine } = paragraph
  if (lastLine.startsWith('|')) return [...textOf(before), headOf(lastLine, knowledge)]
  const end = mayDefine ? definitionsIn(prose.source).end : 0
  return textOf(end === 0 ? prose : GrowingProse.of(prose.source.slice(end), knowledge))
}

function textOf(prose: GrowingProse | null): readonly Block[] {
  const read = prose?.read('arriving')
  return read === undefined || read.parts.length === 0 ? [] : [{ type: 'paragraph', prose: read }]
}

/** A line that begins with a bar is the head of a table, until the next line tells otherwise. */
function headOf(line: string, knowledge: Knowledge): Block {
  const columns = cellsOf(line).length
  const head = rowOf(line, columns, 'arriving', knowledge)
  return { type: 'table', aligns: head.map(() => null), head, rows: [] }
}

function codeOf(leaf: Code, isOpen: boolean): Block {
  const language = leaf.type === 'fence' ? leaf.fence.language : ''
  return { type: 'code', language, lines: leaf.lines, isOpen }
}

function sourceOf(tex: string): Block {
  const lines = pushAll<string>([], tex.split('\n'))
  return { type: 'code', language: 'latex', lines, isOpen: true }
}
