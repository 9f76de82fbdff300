/** What a page has learnt about the way to its server. One for all streams of a page. */

/** So long a verdict holds: a proxy seldom changes, but a train leaves its tunnel. */
const HOLDS_MS = 300_000

/**
 * Some proxies hold a reply back until it is whole. Through them nothing streams, but short replies come;
 * where that was seen, streams are asked for piece by piece instead.
 */
export class Network {
  #heldUntil = -Infinity

  /** A stream said nothing while a short reply came through. */
  noteHeld(now: number): void {
    this.#heldUntil = now + HOLDS_MS
  }

  holdsStreams(now: number): boolean {
    return now < this.#heldUntil
  }

  /** Another network, another proxy. */
  forget(): void {
    this.#heldUntil = -Infinity
  }
}
