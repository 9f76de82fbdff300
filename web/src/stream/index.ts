/** The stream package: how an answer reaches a page, comes into view, and stays where it is read. */
export { StreamError, type StreamErrorType } from './errors.ts'
export { blank, fold, growingText, textOf, type Answer, type Notes } from './fold.ts'
export { follow, followLive, type Followed, type FollowOptions } from './follow.ts'
export { Network } from './network.ts'
export { enginePhase, phaseOf, type Phase } from './phase.ts'
export { sharingReach } from './reach.ts'
export {
  browserFrames,
  modeFor,
  MODES,
  Reveal,
  type Frames,
  type Mode,
  type RevealOptions,
  type Sample,
  type Update,
} from './reveal.ts'
export { stick, type Stick } from './scroll.ts'
export type { Link } from './sse.ts'
export { GrowingText, type Readable } from './text.ts'
export { markSample, TRACE_MARK } from './trace.ts'
export { fitAboveKeyboard } from './viewport.ts'
export * from './wire.ts'
export { browserWorld, type Wake, type World } from './world.ts'
