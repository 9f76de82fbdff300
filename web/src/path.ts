/** The branch of a chat that is shown, and what becomes of it while an answer is written. */
import type { Answer } from './stream/fold.ts'
import type { Message } from './stream/wire.ts'

/**
 * From the root to the newest message that nothing follows, on a branch with the message `through` where that is
 * there. Parents come before their children.
 */
export function newestPath(
  messages: readonly Message[],
  through: string | null = null,
): readonly Message[] {
  const byId = new Map(messages.map((message) => [message.id, message]))
  const parents = new Set(messages.map((message) => message.parent))
  const leaves = messages.filter((message) => !parents.has(message.id)).reverse()
  const paths = leaves
    .sort((one, other) => other.created_at - one.created_at)
    .map((leaf) => pathTo(leaf, byId))
  return paths.find((path) => path.some(({ id }) => id === through)) ?? paths[0] ?? []
}

function pathTo(leaf: Message, byId: ReadonlyMap<string, Message>): readonly Message[] {
  const path: Message[] = []
  for (
    let at: Message | undefined = leaf;
    at !== undefined;
    at = at.parent === null ? undefined : byId.get(at.parent)
  ) {
    path.unshift(at)
  }
  return path
}

/** The message as its run tells it. */
export function told(message: Message, answer: Answer): Message {
  const { parts, lastId, state, finish, error, usage, timings } = answer
  const made_with = message.made_with && {
    ...message.made_with,
    model: answer.model ?? message.made_with.model,
  }
  const left_out = answer.leftOut ?? message.left_out
  return {
    ...message,
    parts,
    last_id: lastId,
    state,
    finish,
    error,
    usage,
    timings,
    made_with,
    left_out,
  }
}

/** The part of a path that ends with the message `id`. */
export function upTo(messages: readonly Message[], id: string | null): readonly Message[] {
  return messages.slice(0, messages.findIndex((message) => message.id === id) + 1)
}

/** The question that was asked with an answer, before the server is asked for it. */
export function questionOf(content: string, answer: Message): Message {
  return {
    id: answer.parent ?? `question of ${answer.id}`,
    chat: answer.chat,
    parent: null,
    role: 'user',
    parts: [{ type: 'text', text: content }],
    created_at: answer.created_at,
    run: null,
    last_id: null,
    state: 'done',
    finish: null,
    error: null,
    usage: null,
    timings: null,
    made_with: null,
    left_out: 0,
  }
}
