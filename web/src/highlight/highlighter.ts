/** Asks the worker for tokens. There is one for the page; it starts with the first question. */
import type { Ask, Tokens } from './tokens.ts'

class Highlighter {
  #worker: Worker | null = null
  #asked = 0
  readonly #waiting = new Map<number, (tokens: Tokens) => void>()

  tokensOf(language: string, code: string): Promise<Tokens> {
    this.#worker ??= this.#start()
    const ask: Ask = { id: (this.#asked += 1), language: language.toLowerCase(), code }
    this.#worker.postMessage(ask)
    return new Promise((resolve) => this.#waiting.set(ask.id, resolve))
  }

  #start(): Worker {
    const worker = new Worker(new URL('./worker.ts', import.meta.url), { type: 'module' })
    worker.addEventListener('message', ({ data }: MessageEvent<Tokens>) => {
      this.#waiting.get(data.id)?.(data)
      this.#waiting.delete(data.id)
    })
    return worker
  }
}

export const highlighter = new Highlighter()
