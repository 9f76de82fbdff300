/**
 * A part of an answer as it stands in the page while it is far from view: its words in a few elements, so that the
 * browser's search finds them and a screen reader its headings, and nothing that makes it beautiful.
 */
import type { Block, Row } from '../stream/markdown/tree.ts'
import { plainText } from '../stream/markdown/tree.ts'

export function outline(blocks: readonly Block[]): HTMLElement[] {
  return blocks.map((block) => {
    const element = document.createElement(nameOf(block))
    element.textContent = wordsOf(block)
    return element
  })
}

function nameOf(block: Block): string {
  if (block.type === 'heading') return headingName(block.level)
  return block.type === 'code' ? 'pre' : 'p'
}

/** The page has headings of its own above those of an answer. */
export function headingName(level: number): string {
  return `h${Math.min(6, level + 2)}`
}

function wordsOf(block: Block): string {
  switch (block.type) {
    case 'paragraph':
    case 'heading':
      return plainText(block.prose.parts.flat())
    case 'code':
      return block.lines.flat().join('\n')
    case 'math':
      return block.tex
    case 'list':
      return wordsOfAll(block.items.flat())
    case 'quote':
    case 'item':
    case 'footnote':
      return wordsOfAll(block.blocks.flat())
    case 'table':
      return [block.head, ...block.rows.flat()].map(rowText).join('\n')
    case 'rule':
      return ''
  }
}

function wordsOfAll(blocks: readonly Block[]): string {
  return blocks.map(wordsOf).join('\n')
}

function rowText(row: Row): string {
  return row.map(({ parts }) => plainText(parts.flat())).join(' ')
}
