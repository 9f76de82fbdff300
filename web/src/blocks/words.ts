/** What the blocks of an answer say to the reader. */
export interface BlockWords {
  readonly copy: string
  readonly copied: string
  /** An image of another host, which would learn of the reader. */
  readonly loadImage: (host: string) => string
}
