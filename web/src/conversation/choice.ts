/**
 * Which branch of a chat this browser shows: what happened last counts, a choice here or a message anywhere. So a
 * choice is kept with what was the newest message then, and is void when another branch has got a newer one.
 */
import { kept } from '../storage.ts'
import type { Message } from '../stream/wire.ts'
import { newestOf, pathThrough } from './tree.ts'

interface Choice {
  readonly through: string
  readonly newest: string
}

export function keepChoice(
  chat: string,
  messages: readonly Message[],
  through: string | null,
): void {
  const choice: Choice | null =
    through === null ? null : { through, newest: newestOf(messages)?.id ?? '' }
  kept.set(nameOf(chat), choice ? JSON.stringify(choice) : '')
}

/** The message through which the path goes that is to be shown; null for that of the newest. */
export function keptChoice(chat: string, messages: readonly Message[]): string | null {
  const text = kept.get(nameOf(chat))
  if (text === null) return null
  const { through, newest } = JSON.parse(text) as Choice
  const now = newestOf(messages)?.id
  const isBelow = pathThrough(messages, through).some(({ id }) => id === now)
  return now === newest || isBelow ? through : null
}

function nameOf(chat: string): string {
  return `branch.${chat}`
}
