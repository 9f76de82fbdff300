/** What may help after a failure: by the server's code, and for what no code of ours says by its kind. */

/**
 * - `again`: the same once more
 * - `edit`: the question in other words
 * - `settings`: other settings of this chat
 * - `newChat`: the question in a chat of its own
 * - `anew`: another answer instead of more of this one
 * - `reload`: the chat read again, for the page knows it no better
 */
export type Remedy = 'again' | 'edit' | 'settings' | 'newChat' | 'anew' | 'reload'

/**
 * By code. Nothing: it is for whoever runs the server, or mends itself. Codes that are not here, such as those of a
 * server of another version, are told in the server's words.
 */
export const REMEDIES = {
  offline: [],
  queue_full: ['again'],
  too_many_readers: ['again'],
  too_many_connections: ['again'],
  too_many_runs: ['again'],
  too_many_requests: ['again'],
  too_many_tokens: ['again'],
  too_many_attempts: ['again'],
  request_timeout: ['again'],
  body_too_slow: ['again'],
  body_too_large: ['edit'],
  empty_prompt: ['edit'],
  prompt_too_long: ['edit', 'settings', 'newChat'],
  bad_prompt: ['edit', 'settings'],
  unsupported_parameter: ['settings'],
  unknown_token: ['settings'],
  invalid_parameter: ['settings'],
  key_reused: ['edit'],
  engine_given_up: ['again'],
  engine_unreachable: ['again'],
  engine_not_ready: ['again'],
  engine_lost: ['again'],
  engine_failed: ['again'],
  engine_crashed: ['edit'],
  model_changed: ['again'],
  internal: ['again'],
  disk_full: ['again'],
  log_unwritable: ['again'],
  run_active: ['again'],
  nothing_to_continue: ['anew'],
  cannot_continue: ['anew'],
  bad_seam: ['anew'],
  unknown_chat: ['newChat'],
  chat_deleted: ['newChat'],
  unknown_message: ['reload'],
  not_an_answer: ['reload'],
  unknown_run: ['reload'],
  expired: ['reload'],
  unauthorized: [],
  link_used_up: [],
  admins_only: [],
  other_user: [],
  foreign_host: [],
  foreign_origin: [],
  bad_json: [],
  unknown_format: [],
  query_too_long: [],
} as const satisfies Readonly<Record<string, readonly Remedy[]>>

export type Code = keyof typeof REMEDIES

/** Codes that mean the same to a reader: no engine can be started, whatever is wrong with it. */
const NO_ENGINE: ReadonlySet<string> = new Set([
  'bad_certificates',
  'bad_endpoint',
  'bad_proxy',
  'cannot_quantize',
  'engine_closed',
  'engine_missing',
  'engine_refused',
  'folder_unwritable',
  'gpu_unusable',
  'model_corrupt',
  'model_gated',
  'model_not_found',
  'model_offline',
  'model_too_large',
  'model_unreachable',
  'model_unreadable',
  'model_unsupported',
  'not_enough_memory',
])

interface Failure {
  readonly code: string
  /** Of a run that has failed. */
  readonly retryable?: boolean
  /** Of a request: see `ApiErrorType`. */
  readonly type?: string
}

/** The code as the page knows it; null for one of another version's server. */
export function knownCode(code: string): Code | null {
  if (NO_ENGINE.has(code)) return 'engine_given_up'
  return Object.hasOwn(REMEDIES, code) ? (code as Code) : null
}

export function remediesFor(failure: Failure): readonly Remedy[] {
  const code = knownCode(failure.code)
  if (code !== null) return REMEDIES[code]
  const mayPass = failure.retryable ?? failure.type !== 'refused'
  return [mayPass ? 'again' : 'edit']
}
