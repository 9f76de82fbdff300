/**
 * A list that only grows, cut into chunks of which all but the last keep their identity: adding to it, and
 * finding out what is new in it, takes the same time however long it is (but for one pointer per chunk).
 */
export type Chunks<T> = readonly (readonly T[])[]

export const CHUNK = 8

/** With `concat`: an array that grows by an element keeps room for seventeen more. */
export function push<T>(chunks: Chunks<T>, item: T): Chunks<T> {
  const last = chunks.at(-1)
  if (last === undefined || last.length === CHUNK) return chunks.concat([[item]])
  return chunks.with(-1, last.concat([item]))
}

export function pushAll<T>(chunks: Chunks<T>, items: readonly T[]): Chunks<T> {
  return items.reduce<Chunks<T>>(push, chunks)
}

/** Chunks in which nothing has changed keep their identity. */
export function mapChunks<T>(chunks: Chunks<T>, change: (item: T) => T): Chunks<T> {
  return keepSame(chunks, (chunk) => keepSame(chunk, change))
}

function keepSame<T>(items: readonly T[], change: (item: T) => T): readonly T[] {
  const changed = items.map(change)
  return changed.every((item, index) => item === items[index]) ? items : changed
}
