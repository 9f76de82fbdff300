/**
 * Make of a text on the page, which is `before` now, another one. What is only added is added: the browser keeps
 * what it has shaped, and a selection stays.
 */
export function retext(node: Text, before: string, text: string): void {
  if (text === before) return
  if (text.startsWith(before)) node.appendData(text.slice(before.length))
  else node.data = text
}
