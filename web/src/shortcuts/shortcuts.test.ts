import { expect, test } from 'vitest'
import {
  isApple,
  keysOf,
  shortcutOf,
  SHORTCUTS,
  Shortcuts,
  type Pressed,
} from './shortcuts.svelte.ts'

type Modifier = 'ctrlKey' | 'metaKey' | 'altKey'

function press(
  key: string,
  held: readonly Modifier[] = [],
  fields: Partial<Pressed> = {},
): Pressed {
  return {
    ...{ key, code: `Key${key.toUpperCase()}`, keyCode: 0, isComposing: false },
    ctrlKey: held.includes('ctrlKey'),
    metaKey: held.includes('metaKey'),
    altKey: held.includes('altKey'),
    getModifierState: () => false,
    ...fields,
  }
}

test.each([
  ['n', ['altKey'], ['altKey', 'metaKey'], 'newChat'],
  ['k', ['ctrlKey'], ['metaKey'], 'search'],
  ['/', ['ctrlKey'], ['metaKey'], 'list'],
  ['Escape', [], [], 'stop'],
] as const)(
  '%s is a shortcut with these keys held and no others',
  (key, elsewhere, onApple, does) => {
    expect(shortcutOf(press(key, elsewhere), false)).toBe(does)
    expect(shortcutOf(press(key, onApple), true)).toBe(does)
    if (elsewhere.length > 0) {
      expect(shortcutOf(press(key), false)).toBeNull()
      expect(shortcutOf(press(key, onApple), false)).toBeNull()
      expect(shortcutOf(press(key, ['ctrlKey', 'altKey']), false)).toBeNull()
    }
  },
)

test('a key that writes another character is known by its place, a Latin letter by itself', () => {
  const apple = ['altKey', 'metaKey'] as const
  expect(shortcutOf(press('Dead', apple, { code: 'KeyN' }), true)).toBe('newChat')
  expect(shortcutOf(press('т', ['altKey'], { code: 'KeyN' }), false)).toBe('newChat')
  // On a Dvorak keyboard N stands where others have L.
  expect(shortcutOf(press('n', ['altKey'], { code: 'KeyL' }), false)).toBe('newChat')
  expect(shortcutOf(press('b', ['altKey'], { code: 'KeyN' }), false)).toBeNull()
})

test('what an input method or AltGr writes is no shortcut', () => {
  expect(shortcutOf(press('Escape', [], { isComposing: true }), false)).toBeNull()
  expect(shortcutOf(press('Escape', [], { keyCode: 229 }), false)).toBeNull()
  expect(shortcutOf(press('n', ['altKey'], { getModifierState: () => true }), false)).toBeNull()
})

test('each is written as its platform writes it, and no two are the same', () => {
  expect(keysOf('newChat', false)).toEqual(['Alt', 'N'])
  expect(keysOf('newChat', true)).toEqual(['⌥', '⌘', 'N'])
  expect(keysOf('search', true)).toEqual(['⌘', 'K'])
  expect(keysOf('stop', true)).toEqual(['Esc'])
  for (const onApple of [true, false]) {
    const all = SHORTCUTS.map(({ does }) => keysOf(does, onApple).join(' '))
    expect(new Set(all).size).toBe(all.length)
  }
  expect([isApple('MacIntel'), isApple('iPad'), isApple('Linux x86_64')]).toEqual([
    true,
    true,
    false,
  ])
})

test('a shortcut does what was last said, and without that it is not there', () => {
  const done: string[] = []
  const shortcuts = new Shortcuts(false)
  const ctrlK = press('k', ['ctrlKey'])
  expect(shortcuts.press(ctrlK)).toBe(false)
  const takeBack = shortcuts.on('search', () => done.push('first'))
  shortcuts.on('search', () => done.push('second'))
  takeBack()
  expect(shortcuts.available).toEqual(['search'])
  expect(shortcuts.press(ctrlK)).toBe(true)
  expect(done).toEqual(['second'])
})
