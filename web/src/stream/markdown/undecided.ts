/** When the beginning of a line says nothing yet about what the line is. */
import type { Leaf } from './leaves.ts'
import { mayCloseFence } from './leaves.ts'
import type { Cursor } from './line.ts'
import { CODE_INDENT } from './starts.ts'

/** What matches one of these has matched from its first character on: what has been shown is not taken back. */
const UNDECIDED = [
  /^#{1,6}[ \t]*$/,
  /^>[ \t]*$/,
  // A bullet, a rule, or emphasis.
  /^([-*_])(?:[ \t]*\1)*[ \t]*$/,
  /^\+[ \t]*$/,
  /^\d{1,9}[.)]?[ \t]*$/,
  /^`{1,2}$/,
  /^`{3,}[^`]*$/,
  /^~{1,2}$/,
  /^~{3,}/,
  /^\|[ \t]*$/,
  /^\$\$?$/,
  /^\\$/,
  // A task's box, a definition, a footnote.
  /^\[[^\]]{0,80}(?:\]:?[ \t]*)?$/,
  /^\[[^^\]][^\]]{0,79}\]:/,
]

const BELOW_TEXT = [/^=+[ \t]*$/, /^[|:\- \t]+$/]

/**
 * Whether to show nothing yet of a line that has begun, because with its next characters it may become
 * something quite different from what it looks like.
 */
export function isUndecided(cursor: Cursor, leaf: Leaf | null): boolean {
  if (cursor.isBlank) return true
  const text = cursor.content
  if (leaf?.type === 'fence') return cursor.indent < CODE_INDENT && mayCloseFence(leaf.fence, text)
  if (leaf?.type === 'math' || cursor.indent >= CODE_INDENT) return false
  return (
    UNDECIDED.some((pattern) => pattern.test(text)) ||
    (leaf?.type === 'paragraph' && BELOW_TEXT.some((pattern) => pattern.test(text)))
  )
}
