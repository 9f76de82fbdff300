/** What a waiting or running answer is doing, in one word and with what can be shown beside it. */
import type { Answer } from './fold.ts'
import type { DownloadDetail, EngineStatus } from './wire.ts'

export type Phase =
  | { readonly is: 'sending' }
  | { readonly is: 'connecting' }
  | { readonly is: 'downloading'; readonly share: number | null; readonly detail: DownloadDetail }
  | { readonly is: 'loading'; readonly share: number | null; readonly step: DownloadDetail['step'] }
  | { readonly is: 'given_up'; readonly message: string }
  | { readonly is: 'queued'; readonly place: number }
  | { readonly is: 'reading'; readonly share: number }
  | { readonly is: 'unwritable' }
  | { readonly is: 'starting' }
  | { readonly is: 'generating' }

/** What matters most to the reader comes first: why nothing moves, then what moves. */
export function phaseOf(answer: Answer): Phase {
  const { notes } = answer
  if (notes.log_unwritable) return { is: 'unwritable' }
  const engine = notes.engine && enginePhase(notes.engine)
  if (engine) return engine
  if (notes.queued) return { is: 'queued', place: notes.queued.place }
  if (notes.prefill) return { is: 'reading', share: notes.prefill.share }
  return { is: answer.parts.length > 0 && answer.state === 'running' ? 'generating' : 'starting' }
}

/** The phase of an engine that is not ready, or null. */
export function enginePhase(engine: EngineStatus): Phase | null {
  switch (engine.phase) {
    case 'connecting':
      return { is: 'connecting' }
    case 'downloading':
      return { is: 'downloading', share: engine.share ?? null, detail: engine.detail ?? {} }
    case 'loading':
      return { is: 'loading', share: engine.share ?? null, step: engine.detail?.step }
    case 'given_up':
      return { is: 'given_up', message: engine.message ?? '' }
    case 'ready':
      return null
  }
}
