/**
 * Reads an answer line by line into blocks, by CommonMark's strategy: each line first goes on with the
 * containers that are open, then may open new ones, and what is left of it is text. What is closed is never
 * looked at again, but for references that are defined later.
 */
import { push, pushAll, type Chunks } from './chunks.ts'
import {
  add,
  blockOf,
  EMPTY,
  goesOn,
  loosened,
  passQuoteMark,
  withGaps,
  withoutGaps,
  type Container,
} from './containers.ts'
import {
  addLine,
  closedBlock,
  closedText,
  definitionsIn,
  openBlocks,
  paragraphOf,
  rowOf,
  takeCode,
  takeMath,
  type Leaf,
  type OpenMath,
  type Paragraph,
  type State,
  type Taken,
} from './leaves.ts'
import { REACH } from './emphasis.ts'
import { Cursor } from './line.ts'
import { GrowingProse, type Knowledge } from './prose.ts'
import { labelOf, type Target } from './references.ts'
import { labelsIn, relink } from './relink.ts'
import { CODE_INDENT, startOf, type Marker, type MathFence, type Start } from './starts.ts'
import { alignsOf, cellsOf } from './table.ts'
import type { Block } from './tree.ts'
import { isUndecided } from './undecided.ts'

const NO_TARGET: Target = { href: '', title: '' }
const TASK = /^\[([ xX])\](?=[ \t]+\S)/

/** How to read a line. */
interface Manner {
  readonly isBegun: boolean
  readonly allowsMath: boolean
  /** It has been read before, as something else. */
  readonly isAgain: boolean
}

/** So many containers stand in each other, what would be more is text: drawing them is recursive. */
const DEEPEST = 64

interface Given extends Manner {
  readonly line: string
  /** What was open before the line. */
  readonly outside: State
}

export class BlockReader {
  #stack: readonly Container[] = [{ type: 'answer', ...EMPTY }]
  #leaf: Leaf | null = null
  #knowledge: Knowledge = { definitions: new Map(), isTrusting: true }
  /** What paragraphs grow from: it remembers the line that arrives in pieces. */
  #blank = GrowingProse.empty(this.#knowledge)
  /** Lines. */
  #taken = 0
  /** Labels that closed blocks refer to without a definition. */
  #missing: ReadonlySet<string> = new Set()

  /** A reader that goes its own way from here. All state is values, so that this costs nothing. */
  fork(): BlockReader {
    const fork = new BlockReader()
    fork.#stack = this.#stack
    fork.#leaf = this.#leaf
    fork.#knowledge = this.#knowledge
    fork.#blank = this.#blank
    fork.#taken = this.#taken
    fork.#missing = this.#missing
    return fork
  }

  /** Takes a line without its end. */
  take(line: string): void {
    this.#take(line, { isBegun: false, allowsMath: true, isAgain: false })
    this.#taken += 1
  }

  /** Takes a line that goes on, if what is there of it tells what it is. */
  takeBegun(line: string): boolean {
    return this.#take(line, { isBegun: true, allowsMath: true, isAgain: false })
  }

  /** Everything as it stands when more may come. */
  get blocks(): Chunks<Block> {
    const leaf = this.#leaf ? openBlocks(this.#leaf, this.#knowledge) : []
    const open = this.#stack.slice(1).reduceRight<readonly Block[]>((inner, container) => {
      const block = blockOf({ ...container, blocks: pushAll(container.blocks, inner) })
      return block ? [block] : []
    }, leaf)
    return pushAll(this.#stack[0]?.blocks ?? [], open)
  }

  /** Everything, nothing more coming. */
  end(): Chunks<Block> {
    while (this.#leaf?.type === 'math') this.#unwind(this.#leaf)
    this.#closeTo(1)
    const knowledge = { ...this.#knowledge, isTrusting: false }
    return relink(this.#stack[0]?.blocks ?? [], knowledge, ({ isProvisional }) => isProvisional)
  }

  get #tip(): Container {
    const tip = this.#stack.at(-1)
    if (tip === undefined) throw new Error('The answer itself is never closed.')
    return tip
  }

  /** Returns whether the line could be taken. */
  #take(line: string, manner: Manner): boolean {
    const cursor = new Cursor(line)
    const depth = this.#goOn(cursor)
    const leaf = depth === this.#stack.length ? this.#leaf : null
    if (manner.isBegun && isUndecided(cursor, leaf)) return false
    if (leaf === null && this.#leaf?.type === 'math') {
      this.#unwind(this.#leaf)
      return this.#take(line, manner)
    }
    const outside = { stack: this.#stack, leaf: this.#leaf }
    const given = { ...manner, line, outside }
    if (leaf?.type === 'math') return this.#takeMath(leaf, cursor, given)
    if (leaf && this.#takeCode(leaf, cursor)) return true
    if (cursor.isBlank) this.#takeBlank(depth)
    else if (!this.#begin(cursor, depth, given)) return false
    else this.#stack = withoutGaps(this.#stack)
    return true
  }

  /** How many containers the line belongs to. */
  #goOn(cursor: Cursor): number {
    const isEmpty = this.#tip.blocks.length === 0 && this.#leaf === null
    const last = this.#stack.length - 1
    const end = this.#stack.findIndex(
      (container, at) => !goesOn(container, isEmpty && at === last, cursor),
    )
    return end < 0 ? this.#stack.length : end
  }

  #takeCode(leaf: Leaf, cursor: Cursor): boolean {
    if (leaf.type !== 'fence' && leaf.type !== 'indented') return false
    const isGap = leaf.type === 'indented' && cursor.isBlank
    const taken = takeCode(leaf, cursor)
    if (taken === null) return false
    this.#stack = isGap ? withGaps(this.#stack) : withoutGaps(this.#stack)
    this.#settle(taken)
    return true
  }

  #takeMath(leaf: OpenMath, cursor: Cursor, given: Given): boolean {
    const { taken, rest } = takeMath(leaf, given.line, cursor.rest)
    this.#stack = withoutGaps(this.#stack)
    this.#settle(taken)
    if (this.#leaf?.type === 'math' && this.#leaf.tex.length > REACH) this.#unwind(this.#leaf)
    // What stands behind a formula cannot begin another one that would have to be read again from its line.
    if (rest === '') return true
    return this.#begin(new Cursor(rest), this.#stack.length, { ...given, allowsMath: false })
  }

  #settle(taken: Taken): void {
    this.#leaf = 'leaf' in taken ? taken.leaf : null
    if ('block' in taken) this.#add(taken.block)
  }

  /** The end of a formula has not come: it was none, and nor is there one in its lines. */
  #unwind({ outside, lines }: OpenMath): void {
    this.#stack = outside.stack
    this.#leaf = outside.leaf
    for (const line of lines.flat())
      this.#take(line, { isBegun: false, allowsMath: false, isAgain: true })
  }

  #takeBlank(depth: number): void {
    this.#closeTo(depth)
    this.#stack = withGaps(this.#stack)
  }

  /** Opens what the line opens. What is left of it goes into a paragraph or a table. */
  #begin(cursor: Cursor, depth: number, given: Given): boolean {
    if (depth === this.#stack.length) this.#settleDefinitions(cursor)
    let isNew = false
    for (let kept = depth; ; kept = this.#stack.length, isNew = true) {
      const leaf = isNew ? null : this.#leaf
      if (given.isBegun && isNew && isUndecided(cursor, null)) return false
      const canContinue = leaf?.type === 'paragraph'
      const isInParagraph = canContinue && kept === this.#stack.length
      const { allowsMath } = given
      const allowsContainers = kept < DEEPEST
      const start = startOf(cursor, { isInParagraph, canContinue, allowsMath, allowsContainers })
      if (start === null) {
        if (isNew && cursor.isBlank) return true
        this.#takeText(cursor, kept, given)
        return true
      }
      if (!this.#open(start, cursor, kept, given)) return true
    }
  }

  /** Returns whether it was a container, so that more may open inside. */
  #open(start: Start, cursor: Cursor, kept: number, given: Given): boolean {
    switch (start.type) {
      case 'quote':
        this.#makeRoom(kept)
        passQuoteMark(cursor)
        this.#push({ type: 'quote', ...EMPTY })
        return true
      case 'item':
        this.#openItem(start.marker, start.width, cursor, kept)
        return true
      case 'footnote':
        this.#openFootnote(start.label, start.width, cursor, kept)
        return true
      case 'underline':
        this.#underline(start.level)
        return false
      case 'math':
        this.#openMath(start.closer, start.text, kept, given)
        return false
      default:
        this.#makeRoom(kept)
        this.#openLeaf(start, cursor)
        return false
    }
  }

  #openLeaf(
    start: Exclude<Start, { type: 'quote' | 'item' | 'footnote' | 'underline' | 'math' }>,
    cursor: Cursor,
  ): void {
    switch (start.type) {
      case 'heading': {
        const prose = GrowingProse.of(start.text, this.#knowledge).read('whole')
        return this.#add({ type: 'heading', level: start.level, prose })
      }
      case 'rule':
        return this.#add({ type: 'rule' })
      case 'fence':
        this.#leaf = { type: 'fence', fence: start.fence, lines: [] }
        return
      case 'indented':
        cursor.passColumns(CODE_INDENT)
        this.#leaf = { type: 'indented', lines: [[cursor.rest]], blanks: [] }
    }
  }

  #openMath(closer: MathFence, text: string, kept: number, { line, outside }: Given): void {
    this.#makeRoom(kept)
    const math: OpenMath = { type: 'math', closer, tex: '', lines: [], outside }
    this.#settle(takeMath(math, line, text).taken)
  }

  #openItem(marker: Marker, width: number, cursor: Cursor, kept: number): void {
    this.#makeRoom(kept, marker)
    if (this.#tip.type !== 'list') this.#push({ type: 'list', marker, isTight: true, ...EMPTY })
    const before = cursor.indent
    cursor.passIndent()
    cursor.pass(width)
    // More than four columns behind the marker are one and the indentation of code.
    const padding = cursor.isBlank || cursor.indent > CODE_INDENT ? 1 : cursor.indent
    cursor.passColumns(padding)
    const task = TASK.exec(cursor.content)
    const isChecked = task && task[1] !== ' '
    if (task) {
      cursor.passIndent()
      cursor.pass(task[0].length)
    }
    this.#push({ type: 'item', indent: before + width + padding, isChecked, ...EMPTY })
  }

  #openFootnote(label: string, width: number, cursor: Cursor, kept: number): void {
    this.#makeRoom(kept)
    cursor.passIndent()
    cursor.pass(width)
    this.#define(new Map([[`^${labelOf(label)}`, NO_TARGET]]))
    this.#push({ type: 'footnote', label, ...EMPTY })
  }

  #underline(level: number): void {
    const leaf = this.#leaf
    if (leaf?.type !== 'paragraph') return
    this.#leaf = null
    this.#add({ type: 'heading', level, prose: leaf.prose.read('whole') })
  }

  #takeText(cursor: Cursor, kept: number, { isBegun, isAgain }: Given): void {
    const leaf = this.#leaf
    const isHere = kept === this.#stack.length
    const text = cursor.content
    const origin = isAgain ? null : `${this.#taken} ${cursor.contentAt}`
    if (leaf?.type === 'paragraph') {
      if (!isHere || !this.#openTable(leaf, text)) this.#leaf = addLine(leaf, text, origin)
    } else if (leaf?.type === 'table' && isHere) {
      const mode = isBegun ? 'arriving' : 'whole'
      const row = rowOf(text, leaf.aligns.length, mode, this.#knowledge)
      this.#leaf = { ...leaf, rows: push(leaf.rows, row) }
    } else {
      this.#makeRoom(kept)
      this.#leaf = paragraphOf(this.#blank.grow(text, origin), text)
    }
  }

  #openTable({ before, lastLine, mayDefine }: Paragraph, line: string): boolean {
    const aligns = alignsOf(line)
    const isHead = lastLine.includes('|') && cellsOf(lastLine).length === aligns?.length
    if (aligns === null || !isHead) return false
    this.#leaf = null
    if (before) this.#closeParagraph(before, mayDefine)
    const head = rowOf(lastLine, aligns.length, 'whole', this.#knowledge)
    this.#leaf = { type: 'table', aligns, head, rows: [] }
    return true
  }

  /** Definitions above a line that cannot be part of them are complete. */
  #settleDefinitions(cursor: Cursor): void {
    const leaf = this.#leaf
    if (leaf?.type !== 'paragraph' || !leaf.mayDefine || !/^[[=-]/.test(cursor.content)) return
    const { source } = leaf.prose
    const { found, end } = definitionsIn(source)
    if (end === 0) return
    this.#define(found)
    const rest = source.slice(end)
    const prose = GrowingProse.of(rest, this.#knowledge)
    this.#leaf = rest === '' ? null : paragraphOf(prose, rest)
  }

  /** Closes what a new block at this depth cannot stand in. */
  #makeRoom(depth: number, marker: Marker | null = null): void {
    this.#closeTo(depth)
    const tip = this.#tip
    const isOther = tip.type === 'list' && tip.marker.kind !== marker?.kind
    if (isOther) this.#closeTo(this.#stack.length - 1)
    if (this.#tip.hasGap) this.#stack = loosened(this.#stack)
  }

  #push(container: Container): void {
    this.#stack = [...this.#stack, container]
  }

  #add(block: Block): void {
    const labels = labelsIn(block)
    if (labels.length > 0) this.#missing = new Set([...this.#missing, ...labels])
    this.#stack = this.#stack.with(-1, add(this.#tip, block))
  }

  #closeTo(depth: number): void {
    const leaf = this.#leaf
    this.#leaf = null
    if (leaf?.type === 'paragraph') this.#closeParagraph(leaf.prose, leaf.mayDefine)
    else if (leaf?.type === 'math') throw new Error('A formula without an end is read again.')
    else if (leaf) this.#add(closedBlock(leaf))
    while (this.#stack.length > depth) {
      const block = blockOf(this.#tip)
      this.#stack = this.#stack.slice(0, -1)
      if (block) this.#add(block)
    }
  }

  #closeParagraph(prose: GrowingProse, mayDefine: boolean): void {
    const { source } = prose
    const { found, end } = definitionsIn(mayDefine ? source : '')
    this.#define(found)
    if (end === source.length) return
    const rest = end === 0 ? prose : GrowingProse.of(source.slice(end), this.#knowledge)
    this.#add(closedText(rest))
  }

  /** The first definition of a label counts. */
  #define(found: ReadonlyMap<string, Target>): void {
    if (found.size === 0) return
    const definitions = new Map([...found, ...this.#knowledge.definitions])
    this.#knowledge = { ...this.#knowledge, definitions }
    this.#blank = GrowingProse.empty(this.#knowledge)
    const isDue = (label: string): boolean => found.has(label)
    if (![...this.#missing].some(isDue)) return
    this.#missing = new Set([...this.#missing].filter((label) => !isDue(label)))
    this.#stack = this.#stack.map((container) => ({
      ...container,
      blocks: relink(container.blocks, this.#knowledge, ({ labels }) => [...labels].some(isDue)),
    }))
  }
}
