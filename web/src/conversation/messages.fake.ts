/** Messages as the server tells them. */
import type { Message } from '../stream/wire.ts'

/** An answer that is done, but for what is said of it. */
export function message(fields: Partial<Message>): Message {
  return {
    id: 'm',
    chat: 'c',
    parent: null,
    role: 'assistant',
    parts: [],
    created_at: 1,
    run: null,
    last_id: null,
    state: 'done',
    finish: null,
    error: null,
    usage: null,
    timings: null,
    made_with: null,
    left_out: 0,
    ...fields,
  }
}
