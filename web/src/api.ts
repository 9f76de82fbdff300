/** The one module, beside `stream/`, that talks to the network. Addresses are relative to the page. */
import { BackOff, pause } from './stream/backoff.ts'
import type { Chat, EngineStatus, Message, Model, Run, Sampling, Settings } from './stream/wire.ts'
import type { World } from './stream/world.ts'

const TIMEOUT_MS = 20_000
/** Megabytes, over whatever line. */
const IMPORT_TIMEOUT_MS = 300_000

/** Asks who it is, and so cannot say it. */
const ME = 'me'

const UNSAID: Readonly<Record<keyof Sampling, null>> = {
  temperature: null,
  top_p: null,
  top_k: null,
  min_p: null,
  repetition_penalty: null,
  presence_penalty: null,
  frequency_penalty: null,
  seed: null,
  max_tokens: null,
  stop: null,
}

/** Something to be answered: a new question, the same again, or more of an answer. */
export type Ask =
  | { readonly content: string; readonly parent: string | null }
  | { readonly regenerate: string }
  | { readonly continue: string }

/** Who asks, and what has proved it; a proxy has said so of a `user`. */
export interface Me {
  readonly name: string
  readonly role: 'admin' | 'user'
  readonly by: 'session' | 'key' | 'user' | 'nobody'
}

/** By what somebody signs in: a key of theirs or the server's, or what a sign-in link carries. */
export type Proof = { readonly key: string } | { readonly link: string }

/**
 * - `offline`: no answer came; whether the server did what it was asked is unknown
 * - `busy`: the server asks to come back later
 * - `forbidden`: a key is missing or wrong
 * - `refused`: asking the same again changes nothing
 */
export type ApiErrorType = 'offline' | 'busy' | 'forbidden' | 'refused'

export class ApiError extends Error {
  override name = 'ApiError'

  readonly type: ApiErrorType
  /** The server's stable code, or `offline`. */
  readonly code: string
  readonly retryAfterMs: number

  constructor(type: ApiErrorType, code: string, message: string, retryAfterMs = 0) {
    super(message)
    this.type = type
    this.code = code
    this.retryAfterMs = retryAfterMs
  }
}

export interface ChatPage {
  readonly chats: readonly Chat[]
  /** The `before` of the page behind; null at the end. */
  readonly next: string | null
}

/** What an export had that has no place here. */
export interface Skipped {
  readonly path: string
  readonly reason: string
}

export interface Imported {
  readonly chats: readonly Chat[]
  /** Those that an earlier import has brought. */
  readonly known: readonly Chat[]
  readonly skipped: readonly Skipped[]
}

export interface ChatContents {
  readonly chat: Chat
  readonly messages: readonly Message[]
}

/** What the server made of an ask. */
export interface Taken {
  /** The answer; its parent is the question. */
  readonly message: Message
  readonly run: Run
  /** A chat without a title has taken it from this question. */
  readonly chat: Chat
}

/** A model that the server could load; null where a size is not known. */
export interface ModelRow {
  readonly name: string
  readonly is_here: boolean
  readonly size_bytes: number | null
  readonly memory_bytes: number | null
  readonly fits: boolean | null
  readonly languages: string
}

export interface Models {
  /** The one that answers, or is to, as it was asked for. */
  readonly model: string
  readonly can_switch: boolean
  readonly engine: EngineStatus & Partial<Model>
  readonly models: readonly ModelRow[]
}

export interface ContextUse {
  readonly tokens: number
  readonly context_length: number
  readonly answer_room: number
  /** Messages, the oldest first, for which there would be no room. */
  readonly left_out: number
}

export class Api {
  /** Who uses the page: what it asks is to be done for nobody else. Null where nobody signs in, or nobody has said. */
  user: string | null = null
  /** The server has been asked by somebody else than `user`, and has not done it. */
  onOtherUser: () => void = () => {}
  readonly #world: World
  readonly #base: string

  constructor(world: World, base: string = new URL('api/', document.baseURI).href) {
    this.#world = world
    this.#base = base
  }

  get liveUrl(): string {
    return `${this.#base}live`
  }

  eventsUrl(run: string): string {
    return `${this.#base}runs/${encodeURIComponent(run)}/events`
  }

  /** Where a chat can be saved from, or all of them. */
  exportUrl(chat: string | null, format: 'markdown' | 'json' = 'json'): string {
    if (chat === null) return `${this.#base}export`
    return `${this.#base}chats/${encodeURIComponent(chat)}/export?format=${format}`
  }

  /** Newest first, or what a search has found. */
  page(options: { limit: number; before: string | null; query?: string }): Promise<ChatPage> {
    const { limit, before, query } = options
    const asked = new URLSearchParams({ limit: String(limit) })
    if (before !== null) asked.set('before', before)
    if (query !== undefined) asked.set('query', query)
    return this.#call('GET', `chats?${asked}`)
  }

  rename(chat: string, title: string): Promise<Chat> {
    return this.#call('PATCH', `chats/${encodeURIComponent(chat)}`, { title })
  }

  deleteChat(chat: string): Promise<void> {
    return this.#call('DELETE', `chats/${encodeURIComponent(chat)}`)
  }

  restore(chat: string): Promise<Chat> {
    return this.#call('POST', `chats/${encodeURIComponent(chat)}/restore`, {})
  }

  /** Take an export, given as JSON text. It may be repeated. */
  importChats(text: string): Promise<Imported> {
    return this.#call('POST', 'import', text, {}, IMPORT_TIMEOUT_MS)
  }

  async limits(): Promise<{ readonly body_kib: number }> {
    return (await this.#call<{ limits: { body_kib: number } }>('GET', 'status')).limits
  }

  /** The same key with the same settings never makes a second one. */
  createChat(key: string, settings: Settings): Promise<Chat> {
    return this.#call('POST', 'chats', { settings }, { 'Idempotency-Key': key })
  }

  message(id: string): Promise<Message> {
    return this.#call('GET', `messages/${encodeURIComponent(id)}`)
  }

  /** What is null or left out of `settings.sampling` is the model's own from now on. */
  changeSettings(chat: string, settings: Settings): Promise<Chat> {
    const sampling = { ...UNSAID, ...settings.sampling }
    return this.#call('PATCH', `chats/${encodeURIComponent(chat)}`, {
      settings: { ...settings, sampling },
    })
  }

  chat(id: string): Promise<ChatContents> {
    return this.#call('GET', `chats/${encodeURIComponent(id)}`)
  }

  /** Start an answer. The same key never starts a second one, however often it is sent. */
  ask(chat: string, ask: Ask, key: string): Promise<Taken> {
    return this.#call('POST', `chats/${encodeURIComponent(chat)}/messages`, ask, {
      'Idempotency-Key': key,
    })
  }

  /** How much of the context a question behind `parent` would take; without `content`, what is there. */
  context(chat: string, content: string, parent: string | null): Promise<ContextUse> {
    const asked = content === '' ? { parent } : { content, parent }
    return this.#call('POST', `chats/${encodeURIComponent(chat)}/context`, asked)
  }

  stop(run: string): Promise<Run> {
    return this.#call('POST', `runs/${encodeURIComponent(run)}/stop`, {})
  }

  /** Whether whoever uses this page may manage the server. */
  async isAdmin(): Promise<boolean> {
    return (await this.me()).role === 'admin'
  }

  /** For admins. */
  models(): Promise<Models> {
    return this.#call('GET', 'models')
  }

  /** For admins. Answers that are being written are finished first, or cut with `now`. */
  switchModel(model: string, now: boolean): Promise<Omit<Models, 'models'>> {
    return this.#call('PUT', 'model', { model, now })
  }

  /** For admins. Refused once the engine is being replaced. */
  async callOffSwitch(): Promise<void> {
    await this.#call('DELETE', 'model')
  }

  signIn(proof: Proof): Promise<void> {
    return this.#call('POST', 'session', proof)
  }

  /** End the session of this browser. */
  signOut(): Promise<void> {
    return this.#call('DELETE', 'session')
  }

  me(): Promise<Me> {
    return this.#call('GET', ME)
  }

  async #call<T>(
    method: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE',
    path: string,
    body?: unknown,
    headers: Record<string, string> = {},
    timeoutMs: number = TIMEOUT_MS,
  ): Promise<T> {
    const response = await this.#send(path, {
      method,
      cache: 'no-store',
      credentials: 'same-origin',
      signal: AbortSignal.timeout(timeoutMs),
      headers: {
        ...(body === undefined ? {} : { 'Content-Type': 'application/json' }),
        ...(this.user === null || path === ME ? {} : { 'If-User': encodeURIComponent(this.user) }),
        ...headers,
      },
      ...(body === undefined
        ? {}
        : { body: typeof body === 'string' ? body : JSON.stringify(body) }),
    })
    if (!response.ok) {
      const error = await errorOf(response)
      if (error.code === 'other_user') this.onOtherUser()
      throw error
    }
    // The server is the one that this page came with, so its shapes are taken at their word.
    return (response.status === 204 ? undefined : await this.#read(response)) as T
  }

  async #send(path: string, init: RequestInit): Promise<Response> {
    try {
      return await this.#world.fetch(this.#base + path, init)
    } catch (error) {
      throw new ApiError('offline', 'offline', String(error))
    }
  }

  async #read(response: Response): Promise<unknown> {
    try {
      return await response.json()
    } catch (error) {
      throw new ApiError('offline', 'offline', String(error))
    }
  }
}

/**
 * Ask until there is an answer: while the server is away, and for as long as `signal` lives. What is asked
 * must be safe to repeat. `onWait` hears why it waits. Throws an `ApiError` that waiting does not mend.
 */
export async function patiently<T>(
  ask: () => Promise<T>,
  world: World,
  signal: AbortSignal,
  onWait: (error: ApiError) => void = () => {},
): Promise<T> {
  const backOff = new BackOff(world)
  for (;;) {
    signal.throwIfAborted()
    try {
      return await ask()
    } catch (error) {
      if (!(error instanceof ApiError) || error.type !== 'offline') throw error
      onWait(error)
      await pause(backOff.next(error.retryAfterMs), world, signal)
    }
  }
}

/** A new idempotency key. `crypto.randomUUID` is missing on pages that came over plain HTTP. */
export function newKey(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16))
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('')
}

const FROM_A_PROXY: ReadonlySet<number> = new Set([502, 504])

async function errorOf(response: Response): Promise<ApiError> {
  const { status } = response
  const { code, message } = await told(response)
  const retryAfterMs = 1_000 * Number(response.headers.get('Retry-After') ?? 0) || 0
  if (FROM_A_PROXY.has(status) || (status >= 500 && (code === '' || code === 'shutting_down'))) {
    return new ApiError('offline', 'offline', message, retryAfterMs)
  }
  if (status === 401) return new ApiError('forbidden', code || 'unauthorized', message)
  const type = status === 429 || status >= 500 ? 'busy' : 'refused'
  return new ApiError(type, code || `http_${status}`, message, retryAfterMs)
}

async function told(response: Response): Promise<{ code: string; message: string }> {
  try {
    const { error } = (await response.json()) as { error: { code: string; message: string } }
    return { code: error.code, message: error.message }
  } catch {
    return { code: '', message: `${response.status} ${response.statusText}` }
  }
}
