/** Files on their way in, and what came of them. */
import { ApiError, type Api, type Skipped } from '../api.ts'
import { partsOf } from './parts.ts'

export interface Report {
  readonly name: string
  readonly added: number
  /** Chats that an earlier import has brought. */
  readonly known: number
  readonly skipped: readonly Skipped[]
  /** Why it went no further. */
  readonly problem: ApiError | null
}

export class Imports {
  isBusy = $state.raw(false)
  /** Newest last. */
  reports = $state.raw<readonly Report[]>([])
  readonly #api: Api

  constructor(api: Api) {
    this.#api = api
  }

  /** One file after the other. What is there already is not brought again, so a file may be tried again. */
  async take(files: readonly File[]): Promise<void> {
    if (this.isBusy || files.length === 0) return
    this.isBusy = true
    this.reports = []
    try {
      for (const file of files) this.reports = [...this.reports, await this.#takeOne(file)]
    } finally {
      this.isBusy = false
    }
  }

  dismiss(): void {
    this.reports = []
  }

  async #takeOne(file: File): Promise<Report> {
    let report: Report = { name: file.name, added: 0, known: 0, skipped: [], problem: null }
    try {
      const [text, { body_kib: kib }] = await Promise.all([file.text(), this.#api.limits()])
      for (const part of partsOf(text, 1_024 * kib)) {
        const { chats, known, skipped } = await this.#api.importChats(part)
        report = {
          ...report,
          added: report.added + chats.length,
          known: report.known + known.length,
          skipped: [...report.skipped, ...skipped],
        }
      }
      return report
    } catch (error) {
      return { ...report, problem: asApiError(error) }
    }
  }
}

function asApiError(error: unknown): ApiError {
  if (error instanceof ApiError) return error
  // The browser could not read the file: it was moved, or is a folder.
  if (error instanceof DOMException) return new ApiError('refused', error.name, error.message)
  throw error
}
