import { fitsHeader } from '../core/network.ts'

type Kind = 'text' | 'integer' | 'number' | 'boolean' | 'secret'

export type Variable = {
  name: string
  kind: Kind
  /** As text; undefined when the variable has none. */
  default?: string
  description: string
  check?: (value: string) => string | undefined
}

export const oneOf =
  (...values: string[]) =>
  (value: string) =>
    values.includes(value) ? undefined : `must be one of: ${values.join(', ')}`
export const between = (low: number, high: number) => (value: string) =>
  Number(value) >= low && Number(value) <= high ? undefined : `must be between ${low} and ${high}`
export const maxLength = (limit: number) => (value: string) =>
  value.length <= limit ? undefined : `must not be longer than ${limit} characters`

/** A key that is sent in a header. */
export const checkKey = (value: string) =>
  fitsHeader(value)
    ? undefined
    : 'must be of ASCII characters, without control characters: it is sent in a header'

/** The parts of a comma-separated value. */
export function splitList(value: string): string[] {
  return value
    .split(',')
    .map((part) => part.trim())
    .filter((part) => part !== '')
}

/** At least one part, each of which fits. */
export const listOf = (fits: (part: string) => boolean, problem: string) => (value: string) => {
  const parts = splitList(value)
  return parts.length > 0 && parts.every(fits) ? undefined : problem
}
