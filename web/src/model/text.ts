/** What is said while another model is put into the engine. */
import type { Numbers, Words } from '../i18n.ts'
import type { Switch } from '../stream/wire.ts'

export function switchText(
  words: Words['model'],
  numbers: Numbers,
  { stage, model, share, message }: Switch,
): string {
  if (stage === 'failed') return words.failed(model, message ?? '')
  const said = stage === 'returning' ? words.returning : words[stage](model)
  return share === null ? said : `${said} ${numbers.share(share)}`
}
