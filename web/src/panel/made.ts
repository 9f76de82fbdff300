/** What an answer says of itself, in a line. */
import type { Numbers, Words } from '../i18n.ts'
import type { Message } from '../stream/wire.ts'

/**
 * From the server's own measurements; what it has not measured is not said. Of an answer that was broken off no
 * engine tells a speed: there it is how long it took.
 */
export function figuresOf(
  { usage, timings }: Pick<Message, 'usage' | 'timings'>,
  words: Words['made'],
  numbers: Numbers,
): readonly string[] {
  const speed = timings?.['tokens_per_second']
  const firstToken = timings?.['first_token_seconds']
  const total = timings?.['total_seconds']
  return [
    ...(usage?.completion_tokens ? [words.tokens(numbers.plain(usage.completion_tokens))] : []),
    ...(speed ? [words.speed(numbers.rounded(speed))] : []),
    ...(firstToken === undefined ? [] : [words.firstToken(numbers.time(firstToken))]),
    ...(speed || total === undefined ? [] : [words.took(numbers.time(total))]),
  ]
}
