/** Gives settled blocks the definitions that have come after them. */
import { mapChunks, type Chunks } from './chunks.ts'
import { GrowingProse, type Knowledge } from './prose.ts'
import type { Block, Prose, Row, Unresolved } from './tree.ts'

/** Reads again what `isDue` says; everything else keeps its identity. */
export function relink(
  blocks: Chunks<Block>,
  knowledge: Knowledge,
  isDue: (unresolved: Unresolved) => boolean,
): Chunks<Block> {
  const relinkProse = (prose: Prose): Prose => {
    const { unresolved } = prose
    if (unresolved === null || !isDue(unresolved)) return prose
    return GrowingProse.of(unresolved.source, knowledge).read('whole')
  }
  const relinkRow = (row: Row): Row => {
    const relinked = row.map(relinkProse)
    return relinked.some((prose, index) => prose !== row[index]) ? relinked : row
  }
  const relinkBlock = (block: Block): Block => {
    switch (block.type) {
      case 'paragraph':
      case 'heading':
        return update(block, { prose: relinkProse(block.prose) })
      case 'quote':
      case 'item':
      case 'footnote':
        return update(block, { blocks: mapChunks(block.blocks, relinkBlock) })
      case 'list':
        return update(block, { items: mapChunks(block.items, relinkBlock) })
      case 'table': {
        const [head, rows] = [relinkRow(block.head), mapChunks(block.rows, relinkRow)]
        return update(block, { head, rows })
      }
      default:
        return block
    }
  }
  return mapChunks(blocks, relinkBlock)
}

/** The same node, unless something in it is another. */
function update<T extends object>(node: T, changed: Partial<T>): T {
  const keys = Object.keys(changed) as (keyof T)[]
  return keys.every((key) => changed[key] === node[key]) ? node : { ...node, ...changed }
}

/** References in a block itself, not in blocks that it holds. */
export function labelsIn(block: Block): readonly string[] {
  switch (block.type) {
    case 'paragraph':
    case 'heading':
      return labelsOf(block.prose)
    case 'table':
      return [...block.head, ...block.rows.flat(2)].flatMap(labelsOf)
    default:
      return []
  }
}

function labelsOf({ unresolved }: Prose): readonly string[] {
  return unresolved === null ? [] : [...unresolved.labels]
}
