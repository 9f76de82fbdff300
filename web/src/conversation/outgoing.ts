/**
 * What has been asked and not yet been taken by the server, oldest first. It is kept by the browser, under the name of
 * the tab it belongs to, with the keys that make it safe to send again. What changes a line is pure and gives a new one.
 */
import type { Ask } from '../api.ts'
import { kept } from '../storage.ts'
import type { Message, Settings } from '../stream/wire.ts'
import { upTo } from './tree.ts'

const NAME = 'outgoing.'

/** The end of an answer, or the answer to a question that is in the line itself. */
export type After = { readonly answer: string } | { readonly asked: string }

export interface Outgoing {
  /** Makes it safe to send again, whatever became of the first time. */
  readonly key: string
  /** Who has asked it, and nobody else may. Nobody has a name where nobody signs in. */
  readonly by?: string
  /** Null until the server has made a chat for it. */
  readonly chat: string | null
  /** What that is to be made with. */
  readonly settings?: Settings
  readonly ask: Ask
  /** What it waits for; null where it is to be sent at once. */
  readonly after: After | null
  /** It is being put in other words, and must not go. */
  readonly isEdited?: boolean
}

export type Line = readonly Outgoing[]

export function keptLine(tab: string): Line {
  const line: unknown = JSON.parse(kept.get(NAME + tab) ?? '[]')
  return Array.isArray(line) ? (line as Line) : []
}

/** What in a line may be asked by `user`. */
export function asksOf(line: Line, user: string | null): Line {
  return line.filter(({ by }) => by === undefined || by === user)
}

/** Returns whether there is a line now that the browser keeps. */
export function keepLine(tab: string, line: Line): boolean {
  return kept.set(NAME + tab, line.length === 0 ? '' : JSON.stringify(line)) && line.length > 0
}

/** The names of the tabs that have a line. */
export function tabsWithLines(): readonly string[] {
  return kept.names(NAME).map((name) => name.slice(NAME.length))
}

/** The line of a tab that is gone, which from now on is whose who calls this. */
export function takeLine(tab: string): Line {
  const line = keptLine(tab)
  keepLine(tab, [])
  return line
}

/** The content of a question; null for what is no question. */
export function contentOf({ ask }: Outgoing): string | null {
  return 'content' in ask ? ask.content : null
}

/** The server has made a chat for those that had none. */
export function inChat(line: Line, chat: string): Line {
  return line.map((one) => (one.chat === null ? { ...one, chat } : one))
}

/** The server has the one with `key` and answers it: what waited for that answer now waits for its end. */
export function withoutTaken(line: Line, key: string, answer: string): Line {
  const taken = line.find((one) => one.key === key)
  const instead = taken && 'regenerate' in taken.ask ? taken.ask.regenerate : null
  return rest(line, key).map((one) => {
    const { after } = one
    const waitedForIt = after && 'asked' in after && after.asked === key
    const waitedForOther = after && 'answer' in after && after.answer === instead
    return waitedForIt || waitedForOther ? behind(one, answer, { answer }) : one
  })
}

/** The reader has taken back the one with `key`: what waited for its answer takes its place. */
export function withoutWithdrawn(line: Line, key: string): Line {
  const gone = line.find((one) => one.key === key)
  if (!gone || !('content' in gone.ask)) return rest(line, key)
  const { parent } = gone.ask
  return rest(line, key).map((one) =>
    one.after && 'asked' in one.after && one.after.asked === key
      ? behind(one, parent, gone.after)
      : one,
  )
}

/** The reader has put the one with `key` in other words, so it is another question. */
export function reworded(line: Line, key: string, content: string, newKey: string): Line {
  return line.map((one) => {
    if (one.key === key && 'content' in one.ask) {
      return { ...one, key: newKey, ask: { ...one.ask, content }, isEdited: false }
    }
    const { after } = one
    const waitsForIt = after && 'asked' in after && after.asked === key
    return waitsForIt ? { ...one, after: { asked: newKey } } : one
  })
}

/** The one with `key` is to wait for `after`, or for nothing. */
export function waitingFor(line: Line, key: string, after: After | null): Line {
  return line.map((one) => (one.key === key ? { ...one, after } : one))
}

/** The one with `key` is being put in other words, or not any more. */
export function beingEdited(line: Line, key: string, isEdited: boolean): Line {
  return line.map((one) => (one.key === key ? { ...one, isEdited } : one))
}

/** What is asked beside the end of the path that is shown takes the place of what is behind it. */
export function cutAt(path: readonly Message[], line: Line): readonly Message[] {
  for (const { ask, after } of line) {
    if (after !== null || 'continue' in ask) continue
    if ('regenerate' in ask) {
      const at = path.findIndex(({ id }) => id === ask.regenerate)
      if (at >= 0) return path.slice(0, at)
    } else if (ask.parent === null || path.some(({ id }) => id === ask.parent)) {
      return upTo(path, ask.parent)
    }
  }
  return path
}

/** What of a chat's line hangs at the end of this path, in its order. */
export function behindPath(path: readonly Message[], line: Line): Line {
  const last = path.at(-1) ?? null
  const keys = new Set<string>()
  return line.filter(({ key, ask, after }) => {
    const isHere =
      after && 'asked' in after ? keys.has(after.asked) : last?.id === placeOf(ask, last)
    if (isHere) keys.add(key)
    return isHere
  })
}

/** The message behind which an ask stands; `undefined` for none that there is. */
function placeOf(ask: Ask, last: Message | null): string | undefined {
  if ('content' in ask) return ask.parent ?? undefined
  if ('continue' in ask) return ask.continue
  return last?.role === 'user' ? last.id : ask.regenerate
}

function rest(line: Line, key: string): Line {
  return line.filter((one) => one.key !== key)
}

function behind(one: Outgoing, parent: string | null, after: After | null): Outgoing {
  return 'content' in one.ask ? { ...one, ask: { ...one.ask, parent }, after } : one
}
