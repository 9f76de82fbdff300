/**
 * Who uses the page, as the server knows them. What the browser keeps is theirs: drafts, questions that wait, what is
 * unread. When somebody else comes, it is forgotten.
 */
import { ApiError, type Api, type Me, type Proof } from './api.ts'
import { kept, keptInTab } from './storage.ts'

const WHO = 'who'
/** How the page looks is nobody's secret. */
const EVERYBODYS: ReadonlySet<string> = new Set(['language', 'theme', 'reveal', 'sidebar'])

export class Account {
  /** Null before the server has said. */
  me = $state.raw<Me | null>(null)
  /** Why nobody could be signed out. */
  problem = $state.raw<ApiError | null>(null)
  readonly #api: Api
  readonly #reload: () => void

  constructor(api: Api, reload: () => void = () => location.reload()) {
    this.#api = api
    this.#reload = reload
    api.user = kept.get(WHO)
    api.onOtherUser = () => void this.look()
  }

  /** Null where nobody signs in. */
  get name(): string | null {
    return this.me && nameOf(this.me)
  }

  /** Only what the browser itself has can be given up: a proxy signs its users out itself. */
  get canSignOut(): boolean {
    return this.me?.by === 'session'
  }

  /** Returns whether whoever was here last is here again; otherwise the page begins anew. Throws an `ApiError`. */
  async signIn(proof: Proof): Promise<boolean> {
    await this.#api.signIn(proof)
    return this.look()
  }

  /** Ask the server who it is. Returns whether they were here last; where nobody says, they were. */
  async look(): Promise<boolean> {
    const me = await this.#ask()
    if (me === null) return true
    const before = this.#api.user
    const now = nameOf(me)
    const isElse = before !== null && now !== null && before !== now
    if (isElse) forget()
    if (now !== null) kept.set(WHO, now)
    if (isElse) this.#reload()
    else {
      // A page that is about to begin anew stays whose it was: what it still sends is refused.
      this.me = me
      this.#api.user = now
    }
    return !isElse
  }

  /** Null where the server does not say. */
  async #ask(): Promise<Me | null> {
    try {
      return await this.#api.me()
    } catch (error) {
      if (error instanceof ApiError) return null
      throw error
    }
  }

  async signOut(): Promise<void> {
    this.problem = null
    try {
      await this.#api.signOut()
    } catch (error) {
      if (!(error instanceof ApiError)) throw error
      this.problem = error
      return
    }
    forget()
    this.#reload()
  }

  /** To be called when another tab has changed what the browser keeps. */
  hear({ key, oldValue }: StorageEvent): void {
    if (key !== kept.nameOf(WHO) || oldValue === null) return
    forgetIn(keptInTab)
    this.#reload()
  }
}

function nameOf({ by, name }: Me): string | null {
  return by === 'nobody' ? null : name
}

function forget(): void {
  forgetIn(kept)
  forgetIn(keptInTab)
}

function forgetIn(shelf: typeof kept): void {
  for (const name of shelf.names()) if (!EVERYBODYS.has(name)) shelf.set(name, '')
}
