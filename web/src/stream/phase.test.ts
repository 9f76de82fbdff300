import { expect, test } from 'vitest'
import { blank, fold } from './fold.ts'
import { phaseOf } from './phase.ts'
import type { Note, RunEvent } from './wire.ts'

const started: RunEvent = { kind: 'started', id: '1:1', seq: 1, data: { model: 'm', seed: 1 } }
const text: RunEvent = { kind: 'text', id: '1:2', seq: 2, data: { text: 'a' } }
const queued: Note = { key: 'queued', place: 2 }
const loading: Note = { key: 'engine', phase: 'loading', share: 0.5 }

test.each<[string, (RunEvent | Note)[], object]>([
  ['nothing known', [], { is: 'starting' }],
  ['queued', [queued], { is: 'queued', place: 2 }],
  ['queued while the engine loads', [queued, loading], { is: 'loading', share: 0.5 }],
  [
    'the step that loading is at',
    [{ ...loading, detail: { step: { en: 'capturing graphs 3/40', zh: '捕获计算图 3/40' } } }],
    { is: 'loading', share: 0.5, step: { en: 'capturing graphs 3/40', zh: '捕获计算图 3/40' } },
  ],
  [
    'queued when it is ready',
    [queued, loading, { key: 'engine', phase: 'ready' }],
    { is: 'queued', place: 2 },
  ],
  ['prompt being read', [started, { key: 'prefill', share: 0.4 }], { is: 'reading', share: 0.4 }],
  ['first text', [queued, started, { key: 'prefill', share: 1 }, text], { is: 'generating' }],
  [
    'engine lost in mid-answer',
    [started, text, { key: 'engine', phase: 'connecting' }],
    { is: 'connecting' },
  ],
  [
    'disk full',
    [started, text, loading, { key: 'log_unwritable', message: '' }],
    { is: 'unwritable' },
  ],
  [
    'a download without a known size',
    [{ key: 'engine', phase: 'downloading', share: null }],
    { is: 'downloading', share: null, detail: {} },
  ],
])('%s', (_name, items, phase) => {
  expect(phaseOf(fold(blank(), items))).toEqual(phase)
})
