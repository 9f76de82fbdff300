/** The one module, beside `stream/`, that talks to the network. Addresses are relative to the page. */
import { BackOff, pause } from './stream/backoff.ts'
import type { Chat, Message, Run } from './stream/wire.ts'
import type { World } from './stream/world.ts'

const TIMEOUT_MS = 20_000

/** Something to be answered: a new question, the same again, or more of an answer. */
export type Ask =
  | { readonly content: string; readonly parent: string | null }
  | { readonly regenerate: string }
  | { readonly continue: string }

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

export class Api {
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

  async chats(): Promise<readonly Chat[]> {
    return (await this.#call<{ chats: Chat[] }>('GET', 'chats')).chats
  }

  /** The same key never makes a second one. */
  createChat(key: string): Promise<Chat> {
    return this.#call('POST', 'chats', {}, { 'Idempotency-Key': key })
  }

  message(id: string): Promise<Message> {
    return this.#call('GET', `messages/${encodeURIComponent(id)}`)
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

  stop(run: string): Promise<Run> {
    return this.#call('POST', `runs/${encodeURIComponent(run)}/stop`, {})
  }

  signIn(proof: Proof): Promise<void> {
    return this.#call('POST', 'session', proof)
  }

  async #call<T>(
    method: 'GET' | 'POST',
    path: string,
    body?: unknown,
    headers: Record<string, string> = {},
  ): Promise<T> {
    const response = await this.#send(path, {
      method,
      cache: 'no-store',
      credentials: 'same-origin',
      signal: AbortSignal.timeout(TIMEOUT_MS),
      headers: body === undefined ? headers : { 'Content-Type': 'application/json', ...headers },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    })
    if (!response.ok) throw await errorOf(response)
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
  if (FROM_A_PROXY.has(status) || (status >= 500 && code === '')) {
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
