/** What the reader prefers. Language and theme are applied to the document before anything is drawn. */
import { MediaQuery } from 'svelte/reactivity'
import { Numbers, preferred, words, type Language, type Words } from './i18n.ts'
import { kept } from './storage.ts'
import { modeFor, MODES, type Mode } from './stream/reveal.ts'

export const THEMES = ['system', 'light', 'dark'] as const
export type Theme = (typeof THEMES)[number]

export class Preferences {
  #language = $state<Language>('en')
  #theme = $state<Theme>('system')
  /** Null until the reader has chosen one. */
  #reveal = $state<Mode | null>(null)
  readonly #lessMotion = new MediaQuery('prefers-reduced-motion: reduce')

  constructor() {
    const language = kept.get('language')
    this.#language =
      language === 'en' || language === 'zh' ? language : preferred(navigator.languages)
    this.#theme = THEMES.find((theme) => theme === kept.get('theme')) ?? 'system'
    this.#reveal = MODES.find((mode) => mode === kept.get('reveal')) ?? null
    this.#apply()
  }

  get words(): Words {
    return words[this.language]
  }

  readonly numbers = $derived(new Numbers(this.language))

  get language(): Language {
    return this.#language
  }

  set language(language: Language) {
    this.#language = language
    kept.set('language', language)
    this.#apply()
  }

  get theme(): Theme {
    return this.#theme
  }

  set theme(theme: Theme) {
    this.#theme = theme
    kept.set('theme', theme)
    this.#apply()
  }

  /** How an answer comes into view. */
  get reveal(): Mode {
    return modeFor(this.#reveal, this.#lessMotion.current)
  }

  set reveal(mode: Mode) {
    this.#reveal = mode
    kept.set('reveal', mode)
  }

  #apply(): void {
    document.documentElement.lang = this.language === 'zh' ? 'zh-CN' : 'en'
    document.documentElement.dataset['theme'] = this.theme
  }
}
