/** What the browser keeps for us. Where it keeps nothing (private windows, full disks) the page works on. */
const PREFIX = 'inkstream.'

class Shelf {
  readonly #area: () => Storage

  /** The area is asked for at each use: where storage is forbidden, looking at it throws. */
  constructor(area: () => Storage) {
    this.#area = area
  }

  get(name: string): string | null {
    try {
      return this.#area().getItem(PREFIX + name)
    } catch {
      return null
    }
  }

  /** An empty value is forgotten. Returns whether the browser has done it. */
  set(name: string, value: string): boolean {
    try {
      if (value === '') this.#area().removeItem(PREFIX + name)
      else this.#area().setItem(PREFIX + name, value)
      return true
    } catch {
      return false
    }
  }

  /** What the browser calls it. */
  nameOf(name: string): string {
    return PREFIX + name
  }

  /** What is kept under names that begin so. */
  names(beginning = ''): readonly string[] {
    try {
      return Object.keys(this.#area())
        .filter((name) => name.startsWith(PREFIX + beginning))
        .map((name) => name.slice(PREFIX.length))
    } catch {
      return []
    }
  }
}

/** For every tab, until it is cleared. */
export const kept = new Shelf(() => localStorage)

/** For this tab, through its reloads. */
export const keptInTab = new Shelf(() => sessionStorage)
