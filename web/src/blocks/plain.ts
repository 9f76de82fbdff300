import type { Inline } from '../stream/markdown/tree.ts'

/** A piece of text without its markup. */
export function plain(node: Inline): string {
  if (typeof node === 'string') return node
  switch (node.type) {
    case 'strong':
    case 'emphasis':
    case 'strike':
    case 'link':
      return node.children.map(plain).join('')
    case 'code':
      return node.text
    case 'math':
      return node.tex
    case 'image':
      return node.alt
    case 'footnote':
      return node.label
    case 'break':
      return '\n'
  }
}
