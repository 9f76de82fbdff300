/** What `?trace` shows: arrivals against what is in view, as marks of the browser's own timeline. */
import type { Sample } from './reveal.ts'

export const TRACE_MARK = 'inkstream.reveal'

/** Leaves a sample where DevTools, a `PerformanceObserver` and `bench/page` find it. */
export function markSample(sample: Sample): void {
  performance.mark(TRACE_MARK, { startTime: sample.now, detail: sample })
}
