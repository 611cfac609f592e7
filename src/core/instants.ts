import { ThreadbaseError } from './errors.ts'

/**
 * The instant of a `Timestamp` field or a Date, in UTC.
 * @param field names it in the message
 * @throws invalid_input for one that does not exist, such as the 30th of February
 */
export function readInstant(value: string | Date, field: string): string {
  // with a space JavaScript reads another, older format
  const date = typeof value === 'string' ? new Date(value.toUpperCase().replace(' ', 'T')) : value
  const year = date.getUTCFullYear()
  if (!(year >= 1 && year <= 9_999) || (typeof value === 'string' && !isDay(value.slice(0, 10))))
    throw new ThreadbaseError('invalid_input', `${field} is not a date that exists`, { field })
  return date.toISOString()
}

/** JavaScript takes the 30th of February for the 2nd of March. */
function isDay(day: string): boolean {
  const date = new Date(`${day}T00:00:00Z`)
  return !Number.isNaN(date.getTime()) && date.toISOString().startsWith(day)
}
