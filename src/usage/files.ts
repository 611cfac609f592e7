import { ThreadbaseError } from '../core/errors.ts'
import { dayOf } from './rules.ts'
import { NO_LIMIT, type UsageRecord } from './schema.ts'

/*
 * `usage.json` as councils write it, in either spelling. What is written back has the spelling that was found, and all else
 * that was in the file.
 */

export type UsageFile = Record<string, unknown>

type Field = Exclude<keyof UsageRecord, 'file'>

// the seed's spelling first: that of new files
const NAMES: Record<Field, readonly string[]> = {
  tier: ['tier'],
  dailyUsed: ['daily_used', 'daily_count'],
  dailyLimit: ['daily_limit'],
  monthlyUsed: ['monthly_used', 'monthly_count'],
  monthlyLimit: ['monthly_limit'],
  totalQueries: ['total_queries', 'total_count'],
  lastResetDaily: ['last_reset_daily', 'last_daily_reset'],
  lastResetMonthly: ['last_reset_monthly', 'last_monthly_reset'],
}
const FIELDS = Object.keys(NAMES) as Field[]
const MAX_INT = 2_147_483_647
const MAX_TIER = 63

/**
 * The counters of a `usage.json`. A counter that is missing is 0; a tier or limit, that of users who have none of their own.
 * @param json as parsed
 * @throws invalid_input that names the field and what it should be
 */
export function readUsageFile(json: unknown): UsageRecord {
  if (typeof json !== 'object' || json === null || Array.isArray(json))
    throw new ThreadbaseError('invalid_input', 'it must be a JSON object')
  const file = json as UsageFile
  if (FIELDS.every((field) => namesIn(file, field).length === 0))
    throw new ThreadbaseError('invalid_input', 'it has no field of a usage file, such as daily_used')
  return {
    tier: read(file, 'tier', toTier, 'a text of 1 to 63 characters'),
    dailyUsed: read(file, 'dailyUsed', toCount(MAX_INT), `a whole number from 0 to ${MAX_INT}`) ?? 0,
    dailyLimit: read(file, 'dailyLimit', toLimit, 'a whole number'),
    monthlyUsed: read(file, 'monthlyUsed', toCount(MAX_INT), `a whole number from 0 to ${MAX_INT}`) ?? 0,
    monthlyLimit: read(file, 'monthlyLimit', toLimit, 'a whole number'),
    totalQueries: read(file, 'totalQueries', toCount(Number.MAX_SAFE_INTEGER), 'a whole number from 0') ?? 0,
    lastResetDaily: read(file, 'lastResetDaily', toDay, 'a day such as 2026-01-31'),
    lastResetMonthly: read(file, 'lastResetMonthly', toDay, 'a day such as 2026-01-31'),
  }
}

/** A record as a file: a new one in the seed's spelling, else what was found with what has changed. */
export function writeUsageFile(userId: string, record: UsageRecord, found?: UsageFile): UsageFile {
  const file: UsageFile = found === undefined ? { user_id: userId } : { ...found }
  const old = found === undefined ? undefined : readUsageFile(found)
  for (const field of FIELDS) {
    if (old !== undefined && old[field] === record[field]) continue
    const names = namesIn(file, field)
    for (const name of names.length === 0 ? NAMES[field].slice(0, 1) : names)
      file[name] = likeBefore(file[name], record[field])
  }
  return file
}

/** Null is as good as missing. */
function namesIn(file: UsageFile, field: Field): string[] {
  return NAMES[field].filter((name) => Object.hasOwn(file, name) && file[name] !== null)
}

function read<T>(
  file: UsageFile,
  field: Field,
  to: (value: unknown) => T | undefined,
  wanted: string,
): T | null {
  const [name] = namesIn(file, field)
  if (name === undefined) return null
  const value = to(file[name])
  if (value === undefined)
    throw new ThreadbaseError('invalid_input', `${name} must be ${wanted}`, { field: name })
  return value
}

function toTier(value: unknown): string | undefined {
  const isTier = typeof value === 'string' && value !== '' && [...value].length <= MAX_TIER
  return isTier && value.isWellFormed() && !value.includes('\0') ? value : undefined
}

const toCount = (max: number) => (value: unknown) =>
  Number.isSafeInteger(value) && (value as number) >= 0 && (value as number) <= max
    ? (value as number)
    : undefined

/** Less than nothing, and more than can be counted, are no limit. */
function toLimit(value: unknown): number | undefined {
  if (!Number.isInteger(value)) return undefined
  const limit = value as number
  return limit < 0 || limit > MAX_INT ? NO_LIMIT : limit
}

const DAY = /^(\d{4})-(\d\d)(?:-(\d\d))?$/
const TIME = /^(\d{4}-\d\d-\d\d)[T ]\d\d:\d\d(?::\d\d(?:[.,]\d{1,9})?)?(Z|[+-]\d\d:?\d\d)?$/

/** A day, a month (`2026-01`: its first day), or a time, of UTC where it names no zone. */
function toDay(value: unknown): string | undefined {
  if (typeof value !== 'string') return undefined
  const [, year, month, date = '01'] = DAY.exec(value) ?? []
  if (year !== undefined) return existing(`${year}-${month}-${date}`)
  const [, day, zone] = TIME.exec(value) ?? []
  if (day === undefined || zone === undefined) return day === undefined ? undefined : existing(day)
  const time = new Date(value.replace(' ', 'T').replace(',', '.'))
  return Number.isNaN(time.getTime()) ? undefined : existing(dayOf(time))
}

function existing(day: string): string | undefined {
  const time = new Date(`${day}T00:00:00Z`)
  return day >= '0001' && !Number.isNaN(time.getTime()) && dayOf(time) === day ? day : undefined
}

/** A day in the form of the one that it replaces. */
function likeBefore(before: unknown, value: string | number | null): unknown {
  if (typeof before !== 'string' || typeof value !== 'string') return value
  if (/^\d{4}-\d\d$/.test(before)) return value.slice(0, 7)
  const [, , zone = ''] = TIME.exec(before) ?? []
  return TIME.test(before) ? `${value}T00:00:00${zone === '' ? '' : '+00:00'}` : value
}
