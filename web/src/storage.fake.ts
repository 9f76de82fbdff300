/** What a browser keeps, for tests: stub `localStorage` and `sessionStorage` with it. Its own keys are what it keeps. */
export class MemoryStorage {
  [key: string]: unknown

  getItem(key: string): string | null {
    return (this[key] as string | undefined) ?? null
  }

  setItem(key: string, value: string): void {
    this[key] = value
  }

  removeItem(key: string): void {
    delete this[key]
  }
}
