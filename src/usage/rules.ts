import { ThreadbaseError } from '../core/errors.ts'
import { LOCAL_USER } from '../core/scope.ts'
import { NO_LIMIT, type Usage, type UsageRecord, type UsageSettings } from './schema.ts'

/*
 * How counters are read, whoever keeps them. Days are UTC, as `2026-01-31`. repo.ts says the same in SQL where it counts.
 */

const DAY_MS = 86_400_000

export const dayOf = (time: Date): string => time.toISOString().slice(0, 10)
export const monthOf = (day: string): string => `${day.slice(0, 7)}-01`
const startOf = (day: string) => new Date(`${day}T00:00:00Z`)
export const addDays = (day: string, days: number): string =>
  dayOf(new Date(startOf(day).getTime() + days * DAY_MS))

/** The first day of the next month. */
function nextMonth(day: string): Date {
  const start = startOf(day)
  return new Date(Date.UTC(start.getUTCFullYear(), start.getUTCMonth() + 1, 1))
}

/** Of counters of which nobody knows when they were counted. */
export const NO_DAY = '1970-01-01'

/** Of a user without a row. */
export const tierOfNew = ({ defaultTier, localTier }: UsageSettings, userId: string): string =>
  userId === LOCAL_USER ? localTier : defaultTier

/** What nobody counted yet. */
export function newRecord(settings: UsageSettings, userId: string): UsageRecord {
  return {
    tier: tierOfNew(settings, userId),
    dailyUsed: 0,
    dailyLimit: null,
    monthlyUsed: 0,
    monthlyLimit: null,
    totalQueries: 0,
    lastResetDaily: null,
    lastResetMonthly: null,
  }
}

/** The tier that holds, with its limits as rows have them: a tier that is not configured is the default one. */
export function tierOf({ tiers, defaultTier }: UsageSettings, name: string) {
  const tier = tiers.has(name) ? name : defaultTier
  const { daily = null, monthly = null } = tiers.get(tier) ?? {}
  return { tier, daily: daily ?? NO_LIMIT, monthly: monthly ?? NO_LIMIT }
}

/**
 * The day that counts for somebody who sees `today` on the clock. Who looked at it just before midnight, and waited, meets
 * the counters of the day after: they go on, not back.
 */
export function countingDay({ lastResetDaily }: UsageRecord, today: string): string {
  return lastResetDaily !== null && lastResetDaily === addDays(today, 1) ? lastResetDaily : today
}

/** The record as it is on a day: counters of other days and months are 0. */
export function turnTo(day: string, record: UsageRecord): UsageRecord {
  const month = monthOf(day)
  const ofMonth = record.lastResetMonthly !== null && monthOf(record.lastResetMonthly) === month
  return {
    ...record,
    dailyUsed: record.lastResetDaily === day ? record.dailyUsed : 0,
    monthlyUsed: ofMonth ? record.monthlyUsed : 0,
    lastResetDaily: day,
    // the day in the month is nobody's concern, and stays what it was
    lastResetMonthly: ofMonth ? record.lastResetMonthly : month,
  }
}

/** What callers are told of a record. */
export function toUsage(settings: UsageSettings, userId: string, record: UsageRecord, today: string): Usage {
  const day = countingDay(record, today)
  const { dailyUsed, dailyLimit, monthlyUsed, monthlyLimit, totalQueries } = turnTo(day, record)
  const tier = tierOf(settings, record.tier ?? tierOfNew(settings, userId))
  return {
    userId,
    tier: tier.tier,
    dailyUsed,
    dailyLimit: shown(dailyLimit ?? tier.daily),
    monthlyUsed,
    monthlyLimit: shown(monthlyLimit ?? tier.monthly),
    totalQueries,
    dailyResetsAt: startOf(addDays(day, 1)),
    monthlyResetsAt: nextMonth(day),
  }
}

const shown = (limit: number) => (limit < 0 ? null : limit)

/** The limit that `n` more questions would break: the one that is longer in the way. */
export function brokenLimit(usage: Usage, n: number): 'daily' | 'monthly' | undefined {
  const breaks = (used: number, limit: number | null) => limit !== null && used + n > limit
  if (breaks(usage.monthlyUsed, usage.monthlyLimit)) return 'monthly'
  return breaks(usage.dailyUsed, usage.dailyLimit) ? 'daily' : undefined
}

export function quotaExceeded(usage: Usage, n: number, limit: 'daily' | 'monthly', now: Date) {
  const isDaily = limit === 'daily'
  const resetsAt = isDaily ? usage.dailyResetsAt : usage.monthlyResetsAt
  const used = isDaily ? usage.dailyUsed : usage.monthlyUsed
  const most = isDaily ? usage.dailyLimit : usage.monthlyLimit
  const period = isDaily ? 'day' : 'month'
  const message = `${most} questions a ${period} are allowed in tier ${usage.tier}, ${used} are used and ${n} would be more; it is reset at ${resetsAt.toISOString()}`
  const retryAfterS = Math.max(1, Math.ceil((resetsAt.getTime() - now.getTime()) / 1_000))
  return new ThreadbaseError('quota_exceeded', message, { limit, retryAfterS, asked: n, resetsAt, ...usage })
}

/** Limits that are the tier's own are no limits of the user: they change with the tier. */
export function withoutTierLimits(settings: UsageSettings, userId: string, record: UsageRecord): UsageRecord {
  const { daily, monthly } = tierOf(settings, record.tier ?? tierOfNew(settings, userId))
  return {
    ...record,
    dailyLimit: record.dailyLimit === daily ? null : record.dailyLimit,
    monthlyLimit: record.monthlyLimit === monthly ? null : record.monthlyLimit,
  }
}

/** With the limits that hold, in place of those that the tier gives. */
export function withLimits(settings: UsageSettings, userId: string, record: UsageRecord): UsageRecord {
  const { daily, monthly } = tierOf(settings, record.tier ?? tierOfNew(settings, userId))
  return {
    ...record,
    dailyLimit: record.dailyLimit ?? daily,
    monthlyLimit: record.monthlyLimit ?? monthly,
  }
}

/** The most questions that a user may ask who has not asked any. */
export function mostAtOnce({ daily, monthly }: { daily: number; monthly: number }): number {
  return Math.min(...[daily, monthly].map((limit) => (limit < 0 ? Number.POSITIVE_INFINITY : limit)))
}
