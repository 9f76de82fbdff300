/** The branch of a chat that is shown. */
import type { Message } from './stream/wire.ts'

/** From the root to the newest message that nothing follows. Parents come before their children. */
export function newestPath(messages: readonly Message[]): readonly Message[] {
  const byId = new Map(messages.map((message) => [message.id, message]))
  const parents = new Set(messages.map((message) => message.parent))
  const leaves = messages.filter((message) => !parents.has(message.id))
  const newest = leaves.reduce<Message | undefined>(
    (best, leaf) => (best && best.created_at > leaf.created_at ? best : leaf),
    undefined,
  )
  const path: Message[] = []
  for (
    let at = newest;
    at !== undefined;
    at = at.parent === null ? undefined : byId.get(at.parent)
  ) {
    path.unshift(at)
  }
  return path
}
