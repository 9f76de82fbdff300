/** A picture in a text: a component of its own, because a reader does something with it. */
import { mount, unmount } from 'svelte'
import type { Image, Inline } from '../stream/markdown/tree.ts'
import Picture from './Picture.svelte'
import type { BlockWords } from './words.ts'

export class ShownPicture {
  readonly node = document.createElement('span')
  readonly #image: Image
  readonly #component: ReturnType<typeof mount>

  constructor(image: Image, words: () => BlockWords) {
    this.#image = image
    const { src, alt, title } = image
    const props = {
      src,
      alt,
      title,
      get words() {
        return words()
      },
    }
    this.#component = mount(Picture, { target: this.node, props })
  }

  become(inline: Inline): boolean {
    if (typeof inline === 'string' || inline.type !== 'image') return false
    const { src, alt, title } = this.#image
    return inline.src === src && inline.alt === alt && inline.title === title
  }

  destroy(): void {
    void unmount(this.#component)
  }
}
