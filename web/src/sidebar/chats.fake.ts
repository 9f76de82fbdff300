/** Chats and runs as the server tells them. */
import { UNSET } from '../panel/settings.ts'
import type { Chat, Run, RunState } from '../stream/wire.ts'

export function chat(id: string, updated_at: number, title = `chat ${id}`): Chat {
  return { id, title, created_at: 1, updated_at, settings: UNSET }
}

export function run(id: string, chat: string | null, state: RunState = 'running'): Run {
  const times = { created_at: 1, ended_at: null }
  return { id, chat, message: null, state, last_seq: 1, stop_requested: false, ...times }
}

export const READY = { phase: 'ready' } as const
