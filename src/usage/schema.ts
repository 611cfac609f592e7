import { type Static, Type } from 'typebox'
import type { Actor } from '../audit/schema.ts'
import { closed, Nullable, Text } from '../core/fields.ts'
import type { Scope } from '../core/scope.ts'

/** In a row, a file or a patch: there is no limit. */
export const NO_LIMIT = -1

/** Questions that users of a tier may ask in a day and in a month (UTC); null: no limit. */
export type Tier = { daily: number | null; monthly: number | null }

export type UsageSettings = {
  tiers: ReadonlyMap<string, Tier>
  /** One of `tiers`: of users who have no row, and of rows whose tier is not configured any more. */
  defaultTier: string
  /** As `defaultTier`, of the user `local` while there is no row; no limits in single-user mode unless configured so. */
  localTier: string
}

/** The biggest number of questions that one call counts. */
export const MAX_CONSUMED = 1_000_000
const MAX_INT = 2_147_483_647

/** How much a user has asked, and may. Of a user who never asked, too. */
export type Usage = {
  userId: string
  tier: string
  dailyUsed: number
  /** Null: no limit. */
  dailyLimit: number | null
  monthlyUsed: number
  /** Null: no limit. */
  monthlyLimit: number | null
  /** Ever. */
  totalQueries: number
  /** 00:00 UTC of the next day, when `dailyUsed` is 0 again. */
  dailyResetsAt: Date
  /** 00:00 UTC of the first day of the next month. */
  monthlyResetsAt: Date
}

/** What was counted, for {@link UsageService.refund}. */
export type UsageReceipt = {
  n: number
  /** The day (UTC) that it was counted on, as `2026-01-31`. */
  day: string
  /** The first day of its month. */
  month: string
}

export type Consumed = { usage: Usage; receipt: UsageReceipt }

const Limit = (of: string) =>
  Type.Optional(
    Nullable(
      Type.Integer({
        minimum: NO_LIMIT,
        maximum: MAX_INT,
        description: `Questions in a ${of}, in place of the tier's; -1: no limit; null: the tier's again.`,
      }),
    ),
  )

/** What is not given stays. */
export const UsagePatch = Type.Object(
  {
    tier: Type.Optional(Text(63, { minLength: 1, description: 'One that is configured.' })),
    dailyLimit: Limit('day'),
    monthlyLimit: Limit('month'),
  },
  closed,
)
export type UsagePatch = Static<typeof UsagePatch>

export const MAX_TOTAL_DAYS = 366

const Day = (description: string) =>
  Type.Optional(Type.String({ pattern: '^\\d{4}-\\d\\d-\\d\\d$', description, examples: ['2026-01-31'] }))

export const TotalsQuery = Type.Object(
  {
    since: Day('First day (UTC). Default: 29 days before `until`.'),
    until: Day(`Last day (UTC), ${MAX_TOTAL_DAYS} days at most. Default: today.`),
  },
  closed,
)
export type TotalsQuery = Static<typeof TotalsQuery>

/** What one model was used for on one day, summed from the metadata of messages. */
export type UsageTotal = {
  /** UTC, as `2026-01-31`. */
  day: string
  /** Null: not named. */
  model: string | null
  calls: number
  inputTokens: number
  outputTokens: number
  /** US dollars. Null: no call of them says what it cost. */
  cost: number | null
}

/** A user's counters as they are kept, before a new day or month makes them 0: what the move carries over. */
export type UsageRecord = {
  /** Null: that of users who have no row. */
  tier: string | null
  dailyUsed: number
  /** -1: none; null: that of the tier. */
  dailyLimit: number | null
  monthlyUsed: number
  /** -1: none; null: that of the tier. */
  monthlyLimit: number | null
  totalQueries: number
  /** The day (UTC) that `dailyUsed` is of, as `2026-01-31`. Null: unknown, and so not today. */
  lastResetDaily: string | null
  /** A day of the month that `monthlyUsed` is of. */
  lastResetMonthly: string | null
  /** The file that it was moved from, as parsed: the way back has its spelling, and all else that was in it. */
  file?: Record<string, unknown> | null
}

/**
 * How much each user asks, and may ask: per day and per month, both of UTC. The same on SQL and on JSON files.
 *
 * Source: council-json-to-postgres, "Usage Table".
 */
export type UsageService = {
  /**
   * Counts `n` questions if the user may ask them: all or none, also among many callers at once.
   * @param n 1 to 1,000,000. Default 1
   * @throws quota_exceeded: `details` are `limit` (`daily` or `monthly`), `retryAfterS`, `asked`, `resetsAt` and what
   *   `read` gives; unavailable when it cannot be counted, which is to be taken as a refusal
   */
  consume(scope: Scope, n?: number): Promise<Consumed>

  /**
   * Takes back what was counted for work that no model was asked for: from the day and month that it was counted on, while
   * they last. Never below 0.
   */
  refund(scope: Scope, receipt: UsageReceipt): Promise<void>

  /** How much a user asked, and may; also of one who never did. */
  read(scope: Scope): Promise<Usage>

  /**
   * Gives a user a tier or limits of their own; `tier_changed` in the audit log. For superusers and operators: whether the
   * user has an account is not looked at, since those of external providers may have none yet.
   * @throws invalid_input for a tier that is not configured
   */
  set(actor: Actor, userId: string, patch: UsagePatch): Promise<Usage>

  /**
   * Tokens and costs by day and model, newest day first, from `meta.usage` of the user's messages.
   * @throws invalid_input for more than 366 days; too_large for more than 10,000 rows
   */
  totals(scope: Scope, query?: TotalsQuery): Promise<UsageTotal[]>

  /**
   * Keeps the counters of users who have none; of others nothing changes. A limit that is the tier's is not kept as one of
   * the user's own. For operators.
   * @returns the ids of those who had none
   */
  importRecords(records: Map<string, UsageRecord>): Promise<string[]>

  /** The counters of all users by id, each with the limits that hold. For operators. */
  records(): AsyncIterable<{ userId: string; record: UsageRecord }>
}
