const TAB = 4

/** A place in a line, counted in columns as well as in characters: a tab reaches to the next multiple of four. */
export class Cursor {
  readonly #line: string
  #offset = 0
  #column = 0
  /** Columns of a tab that are not used up. */
  #spare = 0

  constructor(line: string) {
    this.#line = line
  }

  /** Columns of white space from here on. */
  get indent(): number {
    return this.#measure().columns
  }

  get isBlank(): boolean {
    return this.#measure().offset === this.#line.length
  }

  /** Where the white space ends: a place in the line. */
  get contentAt(): number {
    return this.#measure().offset
  }

  /** What follows the white space. */
  get content(): string {
    return this.#line.slice(this.#measure().offset)
  }

  /** Everything from here on; what is left of a tab is spaces. */
  get rest(): string {
    return ' '.repeat(this.#spare) + this.#line.slice(this.#offset)
  }

  /** Pass up to so many columns of white space. */
  passColumns(columns: number): void {
    let left = columns
    while (left > 0) {
      if (this.#spare === 0 && !this.#beginBlank()) return
      const used = Math.min(left, this.#spare)
      this.#spare -= used
      this.#column += used
      left -= used
    }
  }

  passIndent(): void {
    this.passColumns(this.indent)
  }

  /** Pass characters of which none is a tab. */
  pass(characters: number): void {
    this.#offset += characters
    this.#column += characters
  }

  #beginBlank(): boolean {
    const width = widthOf(this.#line[this.#offset], this.#column)
    if (width === 0) return false
    this.#offset += 1
    this.#spare = width
    return true
  }

  #measure(): { readonly offset: number; readonly columns: number } {
    let offset = this.#offset
    let columns = this.#spare
    for (;;) {
      const width = widthOf(this.#line[offset], this.#column + columns)
      if (width === 0) return { offset, columns }
      offset += 1
      columns += width
    }
  }
}

function widthOf(character: string | undefined, column: number): number {
  if (character === ' ') return 1
  return character === '\t' ? TAB - (column % TAB) : 0
}
