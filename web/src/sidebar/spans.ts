/** When a chat was last of use, as the reader's calendar has it: a day, a week or a month. */
import type { Language, Words } from '../i18n.ts'

/** `today`, `yesterday`, `week`, or a month such as `2026-09`. */
export type Span = string

/** What tells the span of a moment, which is given in Unix seconds. */
export function spansAt(now: Date): (seconds: number) => Span {
  const since = (days: number): number => midnight(now, days).getTime() / 1_000
  const [today, yesterday, week] = [since(0), since(1), since(7)]
  return (seconds) => {
    if (seconds >= today) return 'today'
    if (seconds >= yesterday) return 'yesterday'
    return seconds >= week ? 'week' : monthOf(new Date(seconds * 1_000))
  }
}

function monthOf(then: Date): Span {
  return `${then.getFullYear()}-${String(then.getMonth() + 1).padStart(2, '0')}`
}

export function spanName(span: Span, now: Date, words: Words, language: Language): string {
  const { today, yesterday, week } = words.sidebar
  const known: Readonly<Record<Span, string>> = { today, yesterday, week }
  return known[span] ?? monthName(span, now, language)
}

export function msUntilTomorrow(now: Date): number {
  return midnight(now, -1).getTime() - now.getTime()
}

function monthName(span: Span, now: Date, language: Language): string {
  const [year = 0, month = 1] = span.split('-').map(Number)
  const isThisYear = year === now.getFullYear()
  const format = new Intl.DateTimeFormat(language, {
    month: 'long',
    ...(isThisYear ? {} : { year: 'numeric' }),
  })
  return format.format(new Date(year, month - 1))
}

/** So many calendar days ago: days of 23 and 25 hours count as one. */
function midnight(now: Date, daysAgo: number): Date {
  return new Date(now.getFullYear(), now.getMonth(), now.getDate() - daysAgo)
}
