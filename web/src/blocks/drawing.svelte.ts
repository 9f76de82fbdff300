/** What is drawn without the framework, as its components use it. */
import { untrack } from 'svelte'
import type { Attachment } from 'svelte/attachments'
import type { Chunks } from '../stream/markdown/chunks.ts'
import type { Inline } from '../stream/markdown/tree.ts'
import { Formula } from './formula.ts'
import { InlineList } from './inlines.ts'
import type { BlockWords } from './words.ts'

/** The text of the element. Both functions are asked again when what they tell has changed. */
export function inlines(
  parts: () => Chunks<Inline>,
  words: () => BlockWords,
): Attachment<HTMLElement> {
  return (element) => {
    const list = new InlineList(element, words)
    $effect.pre(() => {
      const now = parts()
      untrack(() => list.become(now))
    })
    return () => list.destroy()
  }
}

/** A formula in a line of its own. */
export function formula(
  math: () => { readonly tex: string; readonly isOpen: boolean },
): Attachment<HTMLElement> {
  return (element) => {
    const shown = new Formula(element, true)
    $effect.pre(() => shown.become(math().tex, math().isOpen))
  }
}
