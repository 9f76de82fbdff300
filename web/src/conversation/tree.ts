/** The tree of a chat's messages: an edited question and a regenerated answer are branches. Pure. */
import type { Answer } from '../stream/fold.ts'
import { isTerminal, type Message } from '../stream/wire.ts'

type Messages = readonly Message[]

/** The message that came last; of two that came at once the later in the list. */
export function newestOf(messages: Messages): Message | null {
  return messages.reduce<Message | null>(
    (best, message) => (best && best.created_at > message.created_at ? best : message),
    null,
  )
}

/**
 * From the root through the message `id` to the newest that follows it, at each step; where there is no such
 * message, the path of the newest of all.
 */
export function pathThrough(messages: Messages, id: string | null): Messages {
  const byId = new Map(messages.map((message) => [message.id, message]))
  const through = (id === null ? undefined : byId.get(id)) ?? newestOf(messages)
  const path: Message[] = []
  for (let at = through ?? undefined; at; at = byId.get(at.parent ?? '')) path.unshift(at)
  const heads = newestBelow(messages)
  for (let at = heads.get(path.at(-1)?.id ?? ''); at; at = heads.get(at.id)) path.push(at)
  return path
}

/** What follows each message, oldest first; behind null the roots. */
export function byParent(messages: Messages): ReadonlyMap<string | null, Messages> {
  const children = new Map<string | null, Message[]>()
  for (const message of messages) {
    const known = children.get(message.parent)
    if (known) known.push(message)
    else children.set(message.parent, [message])
  }
  return children
}

/** The child of each message below which the newest message stands. */
function newestBelow(messages: Messages): ReadonlyMap<string, Message> {
  const newest = new Map<string, Message>()
  const age = new Map(messages.map(({ id, created_at }) => [id, created_at]))
  // Children come behind their parents: read backwards, what is below a message is known when it is reached.
  for (const message of messages.toReversed()) {
    if (message.parent === null) continue
    const mine = age.get(message.id) ?? 0
    const best = newest.get(message.parent)
    if (best && (age.get(best.id) ?? 0) >= mine) continue
    newest.set(message.parent, message)
    age.set(message.parent, Math.max(mine, age.get(message.parent) ?? 0))
  }
  return newest
}

/**
 * What was read, but for what we know better: the message that is `followed`, and answers of the same run that
 * have ended since.
 */
export function merged(ours: Messages, read: Messages, followed: string | null): Messages {
  const known = new Map(ours.map((message) => [message.id, message]))
  return read.map((message) => {
    const mine = known.get(message.id)
    const isEnded = mine?.run === message.run && mine !== undefined && isTerminal(mine.state)
    return mine && (message.id === followed || isEnded) ? mine : message
  })
}

/** With these in their place, or behind all others. */
export function withMessages(messages: Messages, added: Messages): Messages {
  const given = new Map(added.map((message) => [message.id, message]))
  const known = new Set(messages.map(({ id }) => id))
  return [
    ...messages.map((message) => given.get(message.id) ?? message),
    ...added.filter(({ id }) => !known.has(id)),
  ]
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
export function upTo(path: Messages, id: string | null): Messages {
  return path.slice(0, path.findIndex((message) => message.id === id) + 1)
}

/** The question that was asked behind `parent` with an answer, before the server is asked for it. */
export function questionOf(content: string, parent: string | null, answer: Message): Message {
  return {
    id: answer.parent ?? `question of ${answer.id}`,
    chat: answer.chat,
    parent,
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
