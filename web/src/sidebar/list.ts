/** A list of chats, newest first, that is whole down to some place, and what news do to it. Pure. */
import type { Chat, ChatNews } from '../stream/wire.ts'

/** `hasMore`: behind its end there are others that are not known. */
export function heard(
  chats: readonly Chat[],
  { id, chat }: ChatNews,
  hasMore: boolean,
): readonly Chat[] {
  const others = chats.filter((other) => other.id !== id)
  if (chat === null) return others
  const at = others.findIndex((other) => isBefore(chat, other))
  // Behind the last one it stands somewhere among those that are read when the reader gets there.
  if (at < 0) return hasMore ? others : [...others, chat]
  return [...others.slice(0, at), chat, ...others.slice(at)]
}

/** The page behind a list, without what has moved up since. */
export function continued(chats: readonly Chat[], page: readonly Chat[]): readonly Chat[] {
  const there = new Set(chats.map(({ id }) => id))
  return [...chats, ...page.filter(({ id }) => !there.has(id))]
}

function isBefore(one: Chat, other: Chat): boolean {
  if (one.updated_at !== other.updated_at) return one.updated_at > other.updated_at
  return one.id > other.id
}
