/** What the browser keeps for us. Where it keeps nothing (private windows, full disks) the page works on. */
export class Shelf {
  readonly #area: () => Storage

  /** The area is asked for at each use: where storage is forbidden, looking at it throws. */
  constructor(area: () => Storage) {
    this.#area = area
  }

  get(name: string): string | null {
    try {
      return this.#area().getItem(`inkstream.${name}`)
    } catch {
      return null
    }
  }

  /** An empty value is forgotten. */
  set(name: string, value: string): void {
    try {
      if (value === '') this.#area().removeItem(`inkstream.${name}`)
      else this.#area().setItem(`inkstream.${name}`, value)
    } catch {
      // Nothing depends on it: it is a convenience that this browser does not grant.
    }
  }
}

/** For every tab, until it is cleared. */
export const kept = new Shelf(() => localStorage)

/** For this tab, through its reloads. */
export const keptInTab = new Shelf(() => sessionStorage)
