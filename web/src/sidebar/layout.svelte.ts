/** Where the sidebar stands: a column that can be folded away, or on narrow screens a drawer. */
import { MediaQuery } from 'svelte/reactivity'
import { kept } from '../storage.ts'

export class Layout {
  readonly #wide = new MediaQuery('min-width: 58rem')
  #isFolded = $state.raw(kept.get('sidebar') === 'folded')
  #isDrawn = $state.raw(false)

  get isWide(): boolean {
    return this.#wide.current
  }

  get isOpen(): boolean {
    return this.isWide ? !this.#isFolded : this.#isDrawn
  }

  toggle(): void {
    if (!this.isWide) {
      this.#isDrawn = !this.#isDrawn
      return
    }
    this.#isFolded = !this.#isFolded
    kept.set('sidebar', this.#isFolded ? 'folded' : '')
  }

  /** Put the drawer away; a column stays. */
  leave(): void {
    this.#isDrawn = false
  }
}
