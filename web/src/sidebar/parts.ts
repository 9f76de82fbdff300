/** Documents to import, in parts that the server takes. */
import { ApiError } from '../api.ts'

type Fields = Readonly<Record<string, unknown>>

/** Beside the chats, a part has the head of its document. */
const HEAD_BYTES = 512

/**
 * The document as it is where it is small enough, else one for every so many chats of it.
 *
 * Throws an `ApiError`: `bad_json`, or `body_too_large` where a single chat is.
 */
export function partsOf(text: string, mostBytes: number): readonly string[] {
  const document = parsed(text)
  if (bytesOf(text) <= mostBytes) return [text]
  const [chats, wrap] = opened(document)
  const parts: string[][] = []
  let room = 0
  for (const chat of chats.map((each) => JSON.stringify(each))) {
    const bytes = bytesOf(chat) + 1
    if (bytes > mostBytes - HEAD_BYTES) throw tooLarge(chat)
    if (bytes > room) {
      parts.push([])
      room = mostBytes - HEAD_BYTES
    }
    parts.at(-1)?.push(chat)
    room -= bytes
  }
  return parts.map((part) => wrap(part.join(',')))
}

/** Ours has its chats in a field, all others are lists of them. */
function opened(document: unknown): [readonly unknown[], (chats: string) => string] {
  if (Array.isArray(document)) return [document, (chats) => `[${chats}]`]
  const { format, version, chats } = (document ?? {}) as Fields
  if (!Array.isArray(chats)) throw tooLarge(String(format))
  const head = JSON.stringify({ format, version }).slice(0, -1)
  return [chats, (part) => `${head},"chats":[${part}]}`]
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text) as unknown
  } catch (error) {
    throw new ApiError('refused', 'bad_json', String(error))
  }
}

function tooLarge(what: string): ApiError {
  return new ApiError('refused', 'body_too_large', what.slice(0, 80))
}

function bytesOf(text: string): number {
  return new TextEncoder().encode(text).length
}
