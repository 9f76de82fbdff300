/** Which chat the page shows stands behind the `#`: the server need not know, under any base path. */

const ADDRESS = /^#\/c\/([\w-]+)(?:\/([\w-]+))?$/

/** Of a chat, and of a place in it. */
export function addressOf(chat: string | null, message: string | null = null): string {
  if (chat === null) return '#/'
  return message === null ? `#/c/${chat}` : `#/c/${chat}/${message}`
}

/** What a sign-in link such as `#/sign-in/SECRET` carries, or null. It is sent to no server but by us. */
export function linkOf(hash: string): string | null {
  return /^#\/sign-in\/([\w-]+)$/.exec(hash)?.[1] ?? null
}

/** The chat that an address such as `#/c/ID` or `#/c/ID/MESSAGE` names, or null. */
export function chatOf(hash: string): string | null {
  return ADDRESS.exec(hash)?.[1] ?? null
}

/** The message that it names, or null. */
export function messageOf(hash: string): string | null {
  return ADDRESS.exec(hash)?.[2] ?? null
}
