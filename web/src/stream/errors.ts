/**
 * Why a stream broke. The first five mend themselves by connecting again; the others need somebody.
 *
 * - `cut`: the connection ended, was refused or never came about
 * - `silent`: nothing arrived for longer than a heartbeat allows
 * - `held`: somebody on the way keeps the stream back; short requests get through
 * - `broken`: what arrived is not what the protocol says: a gap in the numbers, malformed data
 * - `busy`: the server asks to come back later
 * - `reset`: the log does not have our cursor; read again from the start
 * - `expired`: the events are gone, the message is still stored
 * - `missing`: there is no such run
 * - `forbidden`: not without a key
 * - `refused`: any other answer that asking again will not change
 */
export type StreamErrorType =
  | 'cut'
  | 'silent'
  | 'held'
  | 'broken'
  | 'busy'
  | 'reset'
  | 'expired'
  | 'missing'
  | 'forbidden'
  | 'refused'

const MENDS_ITSELF: ReadonlySet<StreamErrorType> = new Set([
  'cut',
  'silent',
  'held',
  'broken',
  'busy',
])

export class StreamError extends Error {
  override name = 'StreamError'

  readonly type: StreamErrorType
  /** How long the server asks us to stay away, in milliseconds. */
  readonly retryAfterMs: number

  constructor(type: StreamErrorType, message: string, retryAfterMs = 0) {
    super(message)
    this.type = type
    this.retryAfterMs = retryAfterMs
  }

  get mendsItself(): boolean {
    return MENDS_ITSELF.has(this.type)
  }
}
