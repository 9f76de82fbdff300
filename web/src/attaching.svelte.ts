/** Files on their way into a question: dropped anywhere on the page, pasted, or chosen. */
import { attach, type Refusal } from './attach.ts'

/** As much as a drag says of itself. */
type Drag = Pick<DragEvent, 'type' | 'dataTransfer' | 'relatedTarget' | 'preventDefault'>
type Paste = Pick<ClipboardEvent, 'clipboardData' | 'preventDefault'>

export class Attaching {
  refused = $state.raw<readonly Refusal[]>([])
  /** Files are being held above the page. */
  isOver = $state.raw(false)
  readonly #take: (block: string) => void

  /** `take` is given what the files have brought, as Markdown. */
  constructor(take: (block: string) => void) {
    this.#take = take
  }

  async add(files: readonly File[]): Promise<void> {
    const { text, refused } = await attach(files)
    this.refused = refused
    if (text !== '') this.#take(text)
  }

  async paste(event: Paste): Promise<void> {
    const files = [...(event.clipboardData?.files ?? [])]
    // A table copied from a spreadsheet comes as a picture too: what is there as text is meant as text.
    if (files.length === 0 || event.clipboardData?.types.includes('text/plain')) return
    event.preventDefault()
    await this.add(files)
  }

  /** Over anything on the page, or let go there: a file that misses the field would else take the place of the page. */
  async drag(event: Drag): Promise<void> {
    if (!event.dataTransfer?.types.includes('Files')) return
    event.preventDefault()
    this.isOver = event.type === 'dragover'
    if (event.type === 'drop') await this.add([...event.dataTransfer.files])
  }

  leave({ relatedTarget }: Drag): void {
    // Between two elements of the page it is still above it.
    if (relatedTarget === null) this.isOver = false
  }

  forget(): void {
    this.refused = []
  }
}
