import { ThreadbaseError } from '../core/errors.ts'

const SECONDS: Record<string, number> = { s: 1, m: 60, h: 3_600, d: 86_400, w: 604_800 }

/**
 * `90s`, `12h`, `30d`, `8w`, or seconds without a unit; undefined for none.
 * @param option that the text was given to
 * @throws invalid_input
 */
export function readSeconds(option: string, text: string | undefined): number | undefined {
  if (text === undefined) return undefined
  const [, amount, unit = 's'] = /^(\d{1,9})([smhdw])?$/.exec(text) ?? []
  if (amount === undefined)
    throw new ThreadbaseError('invalid_input', `${option} must be a time such as 90s, 12h, 30d or 8w`)
  return Number(amount) * (SECONDS[unit] as number)
}
