/**
 * Remembers what a function made of a value, for as long as the value lives. A line that arrives in pieces is
 * read again with each of them and closes the same blocks each time: they shall be the same objects, too.
 */
export function memo<K extends object, V>(make: (key: K) => V): (key: K) => V {
  const made = new WeakMap<K, { readonly value: V }>()
  return (key) => {
    const known = made.get(key) ?? { value: make(key) }
    made.set(key, known)
    return known.value
  }
}
