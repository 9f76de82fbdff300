/**
 * What has been typed and not sent, per chat. A tab keeps its own through its reloads; a new tab begins with
 * what this browser typed last.
 */
import { kept, keptInTab } from '../storage.ts'

export function keptDraft(chat: string | null): string {
  const name = nameOf(chat)
  const text = keptInTab.get(name) ?? kept.get(name) ?? ''
  keptInTab.set(name, text)
  return text
}

export function keepDraft(chat: string | null, text: string): void {
  const name = nameOf(chat)
  const isOurs = kept.get(name) === keptInTab.get(name)
  keptInTab.set(name, text)
  // What was sent from here is no draft any more; what another tab types meanwhile still is.
  if (text !== '' || isOurs) kept.set(name, text)
}

/** An edit of a message, or of a question that waits, that is under way in this tab. */
export interface Edit {
  /** A message's id or an outgoing question's key. */
  readonly of: string
  readonly text: string
}

export function keptEdit(chat: string | null): Edit | null {
  const text = keptInTab.get(editOf(chat))
  return text === null ? null : (JSON.parse(text) as Edit)
}

export function keepEdit(chat: string | null, edit: Edit | null): void {
  keptInTab.set(editOf(chat), edit === null ? '' : JSON.stringify(edit))
}

/** The new chat has become this one: what was typed meanwhile belongs to it. */
export function moveToChat(chat: string): void {
  keepDraft(chat, keptDraft(null))
  keepDraft(null, '')
  keepEdit(chat, keptEdit(null))
  keepEdit(null, null)
}

function nameOf(chat: string | null): string {
  return `draft.${chat ?? 'new'}`
}

function editOf(chat: string | null): string {
  return `edit.${chat ?? 'new'}`
}
