/** Where things stand in a conversation on the page. */

/** From the end, so that it takes the same however long the conversation is. */
export function lastQuestion(content: HTMLElement): HTMLElement | null {
  let row = content.querySelector('.transcript')?.lastElementChild
  while (row && !row.firstElementChild?.matches('.question:not(.waiting)'))
    row = row.previousElementSibling
  return (row?.firstElementChild as HTMLElement | null | undefined) ?? null
}

/** The question or the answer that a message is. */
export function placeOf(content: HTMLElement, message: string): HTMLElement | null {
  return controlOf(content, message, ':is(.question, .answer)')
}

/** Something that belongs to a message. */
export function controlOf(
  content: HTMLElement,
  message: string,
  selector: string,
): HTMLElement | null {
  return content.querySelector<HTMLElement>(`[data-message="${CSS.escape(message)}"] ${selector}`)
}
