/** What stands beside a block, its bullets, numbers or rule: on which side, and how wide. */
import { CHUNK } from '../stream/markdown/chunks.ts'
import { plainText, type Block, type List } from '../stream/markdown/tree.ts'

const LETTER = /\p{L}/u
const RIGHT_TO_LEFT =
  /[\p{Script=Arabic}\p{Script=Hebrew}\p{Script=Syriac}\p{Script=Thaana}\p{Script=Nko}]/u

/**
 * By its first letter. `dir="auto"` would not find it: that leaves out what has a direction of its own, as every
 * paragraph has.
 */
export function directionOf(block: Block): 'rtl' | undefined {
  return RIGHT_TO_LEFT.test(LETTER.exec(beginning(block))?.[0] ?? '') ? 'rtl' : undefined
}

function beginning(block: Block | undefined): string {
  switch (block?.type) {
    case 'paragraph':
    case 'heading':
      return plainText(block.prose.parts[0] ?? [])
    case 'list':
      return beginning(block.items[0]?.[0])
    case 'quote':
    case 'item':
    case 'footnote':
      return beginning(block.blocks[0]?.[0])
    case 'table':
      return block.head.map(({ parts }) => plainText(parts.flat())).join(' ')
    default:
      return ''
  }
}

/** What a list needs beside it, where its numbers are longer than the usual room for them. */
export function roomForNumbers({ start, items }: List): string | undefined {
  const count = CHUNK * (items.length - 1) + (items.at(-1)?.length ?? 0)
  const digits = String((start ?? 0) + count - 1).length
  return digits > 3 ? `${0.6 * digits + 0.8}em` : undefined
}
