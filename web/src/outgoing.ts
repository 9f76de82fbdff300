/** What has been asked and not yet been taken by the server. It outlives a reload of its tab. */
import type { Ask } from './api.ts'
import { keptInTab } from './storage.ts'

const NAME = 'outgoing'

export interface Outgoing {
  /** Makes it safe to send again, whatever became of the first time. */
  readonly key: string
  /** Null until the server has made a chat for it. */
  readonly chat: string | null
  readonly ask: Ask
}

export function keptOutgoing(): Outgoing | null {
  const text = keptInTab.get(NAME)
  return text === null ? null : (JSON.parse(text) as Outgoing)
}

export function keepOutgoing(outgoing: Outgoing | null): void {
  keptInTab.set(NAME, outgoing === null ? '' : JSON.stringify(outgoing))
}
