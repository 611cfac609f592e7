import { ThreadbaseError } from '../../core/errors.ts'
import { parseInput } from '../../core/validate.ts'
import { addDays, dayOf } from '../rules.ts'
import { MAX_TOTAL_DAYS, TotalsQuery } from '../schema.ts'

/** Instants from `since` on and before `until`. */
export type Range = { since: Date; until: Date }

const DEFAULT_DAYS = 30
export const MAX_TOTALS = 10_000

/** The days that are asked for. @throws invalid_input for days that there are not, or too many of them */
export function requireRange(input: TotalsQuery, today: string): Range {
  const query = parseInput(TotalsQuery, input, 'query')
  const until = requireDay('until', query.until ?? today)
  const since = requireDay('since', query.since ?? addDays(until, 1 - DEFAULT_DAYS))
  const range = { since: startOf(since), until: startOf(addDays(until, 1)) }
  const days = (range.until.getTime() - range.since.getTime()) / 86_400_000
  if (days > MAX_TOTAL_DAYS)
    throw new ThreadbaseError('invalid_input', `ask for ${MAX_TOTAL_DAYS} days at most, not ${days}`, {
      days,
    })
  return range
}

const startOf = (day: string) => new Date(`${day}T00:00:00Z`)

function requireDay(field: string, day: string): string {
  const date = startOf(day)
  // JavaScript makes the 3rd of March of a 31st of February
  const exists = !Number.isNaN(date.getTime()) && dayOf(date) === day
  if (exists && day >= '1970' && day < '9999') return day
  throw new ThreadbaseError('invalid_input', `query.${field} must be a day such as 2026-01-31`, { field })
}

export function tooManyTotals(): ThreadbaseError {
  return new ThreadbaseError('too_large', `there are more than ${MAX_TOTALS} totals: ask for fewer days`, {
    limit: MAX_TOTALS,
  })
}
