/** Draws a tree as HTML, in the manner of markdown-it, so that the two can be compared. */
import type { Chunks } from './chunks.ts'
import type { Block, Inline, Item, List, Prose, Table } from './tree.ts'

export function htmlOf(blocks: Chunks<Block>): string {
  return blocks.flat().map(ofBlock).join('')
}

function ofBlock(block: Block): string {
  switch (block.type) {
    case 'paragraph':
      return `<p>${ofProse(block.prose)}</p>\n`
    case 'heading':
      return `<h${block.level}>${ofProse(block.prose)}</h${block.level}>\n`
    case 'rule':
      return '<hr>\n'
    case 'math':
      return `<math>${escaped(block.tex)}</math>\n`
    case 'quote':
      return `<blockquote>\n${htmlOf(block.blocks)}</blockquote>\n`
    case 'footnote':
      return `<aside>${htmlOf(block.blocks)}</aside>\n`
    case 'code': {
      const language = block.language && ` class="language-${escaped(block.language)}"`
      const text = block.lines.flat().map((line) => `${escaped(line)}\n`)
      return `<pre><code${language}>${text.join('')}</code></pre>\n`
    }
    case 'list':
      return ofList(block)
    case 'item':
      throw new Error('An item stands outside of a list.')
    case 'table':
      return ofTable(block)
  }
}

function ofList({ start, isTight, items }: List): string {
  const tag = start === null ? 'ul' : 'ol'
  const from = start === null || start === 1 ? '' : ` start="${start}"`
  const inner = items.flat().map((item) => {
    if (item.type !== 'item') throw new Error(`A list holds a ${item.type}.`)
    return `<li>${task(item)}${isTight ? tight(item) : htmlOf(item.blocks)}</li>\n`
  })
  return `<${tag}${from}>\n${inner.join('')}</${tag}>\n`
}

function task({ isChecked }: Item): string {
  if (isChecked === null) return ''
  return `<input type="checkbox"${isChecked ? ' checked' : ''}>`
}

function tight({ blocks }: Item): string {
  return blocks
    .flat()
    .map((block) => (block.type === 'paragraph' ? ofProse(block.prose) : ofBlock(block)))
    .join('\n')
}

function ofTable({ aligns, head, rows }: Table): string {
  const row = (cells: readonly Prose[], tag: string): string =>
    `<tr>${cells.map((cell, at) => ofCell(cell, tag, aligns[at] ?? null)).join('')}</tr>`
  const body = rows.flat().map((cells) => row(cells, 'td'))
  const tbody = body.length > 0 ? `<tbody>${body.join('')}</tbody>` : ''
  return `<table><thead>${row(head, 'th')}</thead>${tbody}</table>\n`
}

function ofCell(cell: Prose, tag: string, align: string | null): string {
  const style = align ? ` style="text-align:${align}"` : ''
  return `<${tag}${style}>${ofProse(cell)}</${tag}>`
}

function ofProse({ parts }: Prose): string {
  return parts.flat().map(ofInline).join('')
}

const TAGS = { strong: 'strong', emphasis: 'em', strike: 's' } as const

function ofInline(inline: Inline): string {
  if (typeof inline === 'string') return escaped(inline)
  switch (inline.type) {
    case 'code':
      return `<code>${escaped(inline.text)}</code>`
    case 'math':
      return `<math${inline.isOpen ? ' open' : ''}>${escaped(inline.tex)}</math>`
    case 'break':
      return '<br>\n'
    case 'footnote':
      return `<sup>${escaped(inline.label)}</sup>`
    case 'image':
      return `<img src="${escaped(inline.src ?? '?')}" alt="${escaped(inline.alt)}"${titled(inline.title)}>`
    case 'link': {
      const href = inline.href === null ? '' : ` href="${escaped(inline.href)}"`
      return `<a${href}${titled(inline.title)}>${inline.children.map(ofInline).join('')}</a>`
    }
    default:
      return `<${TAGS[inline.type]}>${inline.children.map(ofInline).join('')}</${TAGS[inline.type]}>`
  }
}

function titled(title: string): string {
  return title && ` title="${escaped(title)}"`
}

function escaped(text: string): string {
  return text
    .replaceAll('&', '&amp;')
    .replaceAll('<', '&lt;')
    .replaceAll('>', '&gt;')
    .replaceAll('"', '&quot;')
}
