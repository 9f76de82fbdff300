/** Which build of the page this is: Vite writes it into the document, so a page that is being developed has none. */
export function ownBuild(): string | null {
  return document.querySelector<HTMLMetaElement>('meta[name=build]')?.content ?? null
}
