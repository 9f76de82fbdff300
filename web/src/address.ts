/** Which chat the page shows stands behind the `#`: the server need not know, under any base path. */

export function addressOf(chat: string | null): string {
  return chat === null ? '#/' : `#/c/${chat}`
}

/** What a sign-in link such as `#/sign-in/SECRET` carries, or null. It is sent to no server but by us. */
export function linkOf(hash: string): string | null {
  return /^#\/sign-in\/([\w-]+)$/.exec(hash)?.[1] ?? null
}

/** The chat that an address such as `#/c/ID` names, or null. */
export function chatOf(hash: string): string | null {
  return /^#\/c\/([\w-]+)$/.exec(hash)?.[1] ?? null
}
