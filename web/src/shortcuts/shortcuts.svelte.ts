/**
 * The keyboard shortcuts: one table, from which the keys are understood and the list is drawn.
 *
 * The keys are free in the browsers, in their screen readers and in the common input methods: Alt with a letter
 * that opens no menu, on Apple's keyboards ⌥⌘ (⌃⌥ is VoiceOver's). No single letters, which are somebody's text.
 * Ctrl+K takes the browser's search, as everywhere on the web; Ctrl+/ and Escape are nobody's.
 */
import { untrack } from 'svelte'
import { confirmsComposition } from '../keys.ts'

export type Does = 'newChat' | 'write' | 'stop' | 'copyAnswer' | 'search' | 'sidebar' | 'list'

interface Shortcut {
  readonly does: Does
  /** As `KeyboardEvent.key` has it, small. */
  readonly key: string
  /** `main` is Ctrl, or ⌘; `alt` is Alt, or ⌥⌘. */
  readonly held: 'main' | 'alt' | null
}

export const SHORTCUTS: readonly Shortcut[] = [
  { does: 'newChat', key: 'n', held: 'alt' },
  { does: 'write', key: 'p', held: 'alt' },
  { does: 'stop', key: 'escape', held: null },
  { does: 'copyAnswer', key: 'y', held: 'alt' },
  { does: 'search', key: 'k', held: 'main' },
  { does: 'sidebar', key: 'o', held: 'alt' },
  { does: 'list', key: '/', held: 'main' },
]

export interface Pressed {
  readonly key: string
  readonly code: string
  readonly keyCode: number
  readonly isComposing: boolean
  readonly ctrlKey: boolean
  readonly metaKey: boolean
  readonly altKey: boolean
  readonly getModifierState: (name: string) => boolean
}

export function isApple(platform: string = navigator.platform): boolean {
  return /^(Mac|iP)/.test(platform)
}

export function shortcutOf(pressed: Pressed, onApple: boolean): Does | null {
  // AltGr writes a character; on some systems it comes as Ctrl and Alt.
  if (confirmsComposition(pressed) || pressed.getModifierState('AltGraph')) return null
  const found = SHORTCUTS.find(
    ({ key, held }) => isHeld(pressed, held, onApple) && isKey(pressed, key),
  )
  return found?.does ?? null
}

/** What to press, key by key, as this platform writes it. */
export function keysOf(does: Does, onApple: boolean): readonly string[] {
  const shortcut = SHORTCUTS.find((one) => one.does === does)
  if (!shortcut) return []
  const { key, held } = shortcut
  const main = onApple ? ['⌘'] : ['Ctrl']
  const alt = onApple ? ['⌥', '⌘'] : ['Alt']
  const modifiers = { main, alt, none: [] }[held ?? 'none']
  return [...modifiers, key === 'escape' ? 'Esc' : key.toUpperCase()]
}

function isHeld(pressed: Pressed, held: Shortcut['held'], onApple: boolean): boolean {
  const { ctrlKey, metaKey, altKey } = pressed
  if (held === null) return !ctrlKey && !metaKey && !altKey
  if (onApple) return metaKey && !ctrlKey && altKey === (held === 'alt')
  return !metaKey && ctrlKey === (held === 'main') && altKey === (held === 'alt')
}

/** By the letter, and by the key's place where it writes no Latin one: ⌥N is a tilde, and Cyrillic has no N. */
function isKey({ key, code }: Pressed, wanted: string): boolean {
  if (/^[ -~]$/.test(key) || wanted.length > 1) return key.toLowerCase() === wanted
  return code === (wanted === '/' ? 'Slash' : `Key${wanted.toUpperCase()}`)
}

/** What the shortcuts do. A shortcut without an action is not there. */
export class Shortcuts {
  readonly #onApple: boolean
  #actions = $state.raw<ReadonlyMap<Does, () => void>>(new Map())

  constructor(onApple: boolean = isApple()) {
    this.#onApple = onApple
  }

  /** Returns how to take it back, so that an effect may return it. */
  on(does: Does, action: () => void): () => void {
    const now = (): Map<Does, () => void> => new Map(untrack(() => this.#actions))
    this.#actions = now().set(does, action)
    return () => {
      const left = now()
      if (left.get(does) === action) left.delete(does)
      this.#actions = left
    }
  }

  get available(): readonly Does[] {
    return SHORTCUTS.map(({ does }) => does).filter((does) => this.#actions.has(does))
  }

  keysOf(does: Does): readonly string[] {
    return keysOf(does, this.#onApple)
  }

  /** Say whether it was a shortcut; then it has been followed. */
  press(pressed: Pressed): boolean {
    const does = shortcutOf(pressed, this.#onApple)
    const action = does === null ? undefined : this.#actions.get(does)
    action?.()
    return action !== undefined
  }
}
