/** What the blocks of an answer say to the reader. */
export interface BlockWords {
  readonly copy: string
  readonly copied: string
  readonly refused: string
  /** Just so, where a page over HTTPS might. */
  readonly refusedHere: string
  /** An image of another host, which would learn of the reader. */
  readonly loadImage: (host: string) => string
  /** The state of a task in a list. */
  readonly done: string
  readonly open: string
}
