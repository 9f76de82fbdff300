/** What an answer consists of. Nodes are never changed: a later tree shares with an earlier one all that is settled. */
import type { Chunks } from './chunks.ts'

/** Plain text is a string; a line feed in it is a soft break. */
export type Inline =
  | string
  | { readonly type: 'strong' | 'emphasis' | 'strike'; readonly children: readonly Inline[] }
  | { readonly type: 'code'; readonly text: string }
  /** `isOpen`: its end has not arrived, so that it cannot be typeset yet. */
  | {
      readonly type: 'math'
      readonly tex: string
      readonly isDisplay: boolean
      readonly isOpen: boolean
    }
  | Link
  | Image
  | { readonly type: 'break' }
  | { readonly type: 'footnote'; readonly label: string }

export interface Link {
  readonly type: 'link'
  /** As written, any scheme; `null` where it is not known yet. See `urls.ts` for which may be followed. */
  readonly href: string | null
  readonly title: string
  readonly children: readonly Inline[]
  /** The address itself is the text. */
  readonly isBare: boolean
}

export interface Image {
  readonly type: 'image'
  readonly src: string | null
  readonly title: string
  readonly alt: string
}

/** References for which no definition has come: what it takes to read the text again when one does. */
export interface Unresolved {
  readonly source: string
  readonly labels: ReadonlySet<string>
  /** Something is shown as a reference on trust, and becomes plain text if no definition comes. */
  readonly isProvisional: boolean
}

export interface Prose {
  readonly parts: Chunks<Inline>
  readonly unresolved: Unresolved | null
}

export type Align = 'left' | 'center' | 'right' | null

export type Row = readonly Prose[]

export interface Table {
  readonly type: 'table'
  readonly aligns: readonly Align[]
  readonly head: Row
  readonly rows: Chunks<Row>
}

export interface Code {
  readonly type: 'code'
  /** The first word behind the fence, or nothing. */
  readonly language: string
  readonly lines: Chunks<string>
  readonly isOpen: boolean
}

export interface List {
  readonly type: 'list'
  /** The first number of an ordered list. */
  readonly start: number | null
  readonly isTight: boolean
  readonly items: Chunks<Block>
}

/** Stands in lists only. */
export interface Item {
  readonly type: 'item'
  /** `null` where it is no task. */
  readonly isChecked: boolean | null
  readonly blocks: Chunks<Block>
}

export type Block =
  | { readonly type: 'paragraph'; readonly prose: Prose }
  | { readonly type: 'heading'; readonly level: number; readonly prose: Prose }
  | { readonly type: 'rule' }
  | { readonly type: 'math'; readonly tex: string; readonly isOpen: boolean }
  | { readonly type: 'quote'; readonly blocks: Chunks<Block> }
  | { readonly type: 'footnote'; readonly label: string; readonly blocks: Chunks<Block> }
  | Code
  | List
  | Item
  | Table

/** The text of inlines without their markup, as for an image's description. */
export function plainText(inlines: readonly Inline[]): string {
  return inlines.map(plainTextOf).join('')
}

function plainTextOf(inline: Inline): string {
  if (typeof inline === 'string') return inline
  switch (inline.type) {
    case 'code':
      return inline.text
    case 'math':
      return inline.tex
    case 'image':
      return inline.alt
    case 'break':
      return '\n'
    case 'footnote':
      return ''
    default:
      return plainText(inline.children)
  }
}
