/** What a reader sees of where a link leads. */
import type { Link } from '../stream/markdown/tree.ts'

/** Nothing of it would be seen, so that it could not be told from the text around it. */
export function isUnseen({ children }: Link): boolean {
  return children.every((part) => typeof part === 'string' && /^[\s\p{Cf}]*$/u.test(part))
}

/**
 * Whether the address that is the text itself begins with the host. It does not behind a name to sign in with,
 * nor where the host has letters that look like others: `url` has them as the network knows them.
 */
export function showsHost({ isBare, children }: Link, url: URL): boolean {
  const [text] = children
  if (!isBare || typeof text !== 'string') return false
  return text
    .toLowerCase()
    .replace(/^https?:\/\//, '')
    .startsWith(url.host)
}
