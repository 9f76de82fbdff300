/** Text files, as a question carries them: each in a fence of its own, under its name. */

/** What a model of this size can read at all is less. */
export const FILES_MAX_BYTES = 256_000

export type Why = 'notText' | 'tooLarge' | 'unreadable'

export interface Refusal {
  readonly name: string
  readonly why: Why
}

export interface Attached {
  /** Markdown; empty where no file was taken. */
  readonly text: string
  readonly refused: readonly Refusal[]
}

/** Read files in their order. What is refused does not keep the others out. */
export async function attach(files: readonly File[]): Promise<Attached> {
  const blocks: string[] = []
  const refused: Refusal[] = []
  let room = FILES_MAX_BYTES
  for (const file of files) {
    const got = file.size > room ? 'tooLarge' : await textIn(file)
    if (typeof got === 'string') refused.push({ name: file.name, why: got })
    else {
      room -= file.size
      blocks.push(fenced(file.name, got.text))
    }
  }
  return { text: blocks.join('\n\n'), refused }
}

/** A block stands by itself: between blank lines, wherever the caret is. */
export function insert(
  draft: string,
  [start, end]: readonly [number, number],
  block: string,
): { readonly text: string; readonly caret: number } {
  const before = draft.slice(0, start).trimEnd()
  const after = draft.slice(end).trimStart()
  const upTo = [before, block].filter(Boolean).join('\n\n')
  return { text: `${upTo}\n\n${after}`, caret: upTo.length + 2 }
}

async function textIn(file: File): Promise<{ text: string } | Why> {
  let bytes: ArrayBuffer
  try {
    bytes = await file.arrayBuffer()
  } catch {
    // It is a folder, or has gone since it was chosen.
    return 'unreadable'
  }
  try {
    const text = new TextDecoder(encodingOf(bytes), { fatal: true }).decode(bytes)
    return IS_BINARY.test(text) ? 'notText' : { text: text.replace(/\r\n?/g, '\n') }
  } catch {
    return 'notText'
  }
}

// Control characters that no text has; escapes colour the output of a terminal.
const IS_BINARY = /[\0-\x08\x0e-\x1a\x1c-\x1f]/

/** Older encodings cannot be told from one another, and a wrong guess reads as text. */
function encodingOf(bytes: ArrayBuffer): string {
  const [first, second] = new Uint8Array(bytes, 0, Math.min(2, bytes.byteLength))
  if (first === 0xff && second === 0xfe) return 'utf-16le'
  return first === 0xfe && second === 0xff ? 'utf-16be' : 'utf-8'
}

function fenced(name: string, text: string): string {
  const longest = Math.max(2, ...(text.match(/`+/g) ?? []).map((run) => run.length))
  const fence = '`'.repeat(longest + 1)
  const body = text.endsWith('\n') || text === '' ? text : `${text}\n`
  return `${oneLine(name)}:\n\n${fence}${endingOf(name)}\n${body}${fence}`
}

/** The ending is what most languages are called in fences, and all highlighters know it. */
function endingOf(name: string): string {
  return /\.([\w+#-]{1,12})$/.exec(name)?.[1]?.toLowerCase() ?? ''
}

function oneLine(name: string): string {
  return name.replace(/\s+/g, ' ').trim()
}
