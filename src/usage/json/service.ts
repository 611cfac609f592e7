import type { AuditService } from '../../audit/service.ts'
import { type Scope, userOf } from '../../core/scope.ts'
import { describePatch, requireCount, requirePatch, requireReceipt } from '../input.ts'
import {
  brokenLimit,
  countingDay,
  dayOf,
  monthOf,
  NO_DAY,
  newRecord,
  quotaExceeded,
  tierOfNew,
  toUsage,
  turnTo,
  withLimits,
  withoutTierLimits,
} from '../rules.ts'
import type {
  Consumed,
  UsagePatch,
  UsageReceipt,
  UsageRecord,
  UsageService,
  UsageSettings,
} from '../schema.ts'
import { type Range, requireRange } from '../totals/range.ts'
import { sumUsage, type UsageMessage } from '../totals/sum.ts'
import { openUsageFiles } from './store.ts'

export type { UsageMessage } from '../totals/sum.ts'

export type JsonUsageOptions = {
  /** That `usage/{user_id}/usage.json` are in. */
  dir: string
  settings: UsageSettings
  /** Told of changes by superusers and operators. */
  audit: Pick<AuditService, 'record'>
  /** The user's messages, which totals are summed from; those outside the range are left out here. */
  messagesOf(scope: Scope, range: Range): AsyncIterable<UsageMessage>
  /** Default: that of the system. */
  clock?: () => Date
}

/** Counts what users ask, in the files of a council. */
export function createJsonUsage(options: JsonUsageOptions): UsageService {
  const { dir, settings, audit, messagesOf, clock = () => new Date() } = options
  const files = openUsageFiles(dir)
  const today = () => dayOf(clock())
  const fresh = (userId: string): UsageRecord => {
    const days = { lastResetDaily: today(), lastResetMonthly: monthOf(today()) }
    return withLimits(settings, userId, { ...newRecord(settings, userId), ...days })
  }
  const show = (userId: string, record: UsageRecord) => toUsage(settings, userId, record, today())

  return {
    async consume(scope: Scope, n = 1): Promise<Consumed> {
      const userId = userOf(scope)
      requireCount(n)
      return files.change(userId, ({ record = fresh(userId) }) => {
        // looked at when the wait is over
        const now = clock()
        const day = countingDay(record, dayOf(now))
        const usage = toUsage(settings, userId, record, day)
        const limit = brokenLimit(usage, n)
        if (limit !== undefined) throw quotaExceeded(usage, n, limit, now)
        const write = count(record, day, n)
        const receipt = { n, day, month: monthOf(day) }
        return { write, result: { usage: toUsage(settings, userId, write, day), receipt } }
      })
    },

    async refund(scope, receipt) {
      const given = requireReceipt(receipt)
      await files.change(userOf(scope), ({ record }) => ({
        ...(record === undefined ? {} : { write: giveBack(record, given) }),
        result: undefined,
      }))
    },

    async read(scope) {
      const userId = userOf(scope)
      const { record = fresh(userId) } = await files.read(userId)
      return show(userId, record)
    },

    async set(actor, user, input) {
      const userId = userOf({ userId: user })
      const patch = requirePatch(settings, input)
      const usage = await files.change(userId, ({ record = fresh(userId) }) => {
        const write = withLimits(settings, userId, patched(settings, userId, record, patch))
        return { write, result: show(userId, write) }
      })
      await audit.record(actor, 'tier_changed', userId, describePatch(patch))
      return usage
    },

    async totals(scope, query = {}) {
      userOf(scope)
      const range = requireRange(query, today())
      return sumUsage(messagesOf(scope, range), range)
    },

    async importRecords(records) {
      const imported: string[] = []
      for (const [user, given] of records) {
        const userId = userOf({ userId: user })
        const write = {
          ...withLimits(settings, userId, given),
          tier: given.tier ?? tierOfNew(settings, userId),
          lastResetDaily: given.lastResetDaily ?? NO_DAY,
          lastResetMonthly: given.lastResetMonthly ?? NO_DAY,
        }
        const isNew = await files.change(userId, ({ record }) =>
          record === undefined ? { write, result: true } : { result: false },
        )
        if (isNew) imported.push(userId)
      }
      return imported
    },

    async *records() {
      for (const userId of await files.listUsers()) {
        const { record } = await files.read(userId)
        if (record !== undefined) yield { userId, record: withLimits(settings, userId, record) }
      }
    },
  }
}

function count(record: UsageRecord, day: string, n: number): UsageRecord {
  const turned = turnTo(day, record)
  return {
    ...turned,
    dailyUsed: turned.dailyUsed + n,
    monthlyUsed: turned.monthlyUsed + n,
    totalQueries: turned.totalQueries + n,
  }
}

function giveBack(record: UsageRecord, { n, day, month }: UsageReceipt): UsageRecord {
  const less = (used: number) => Math.max(used - n, 0)
  const isOfMonth = record.lastResetMonthly !== null && monthOf(record.lastResetMonthly) === month
  return {
    ...record,
    dailyUsed: record.lastResetDaily === day ? less(record.dailyUsed) : record.dailyUsed,
    monthlyUsed: isOfMonth ? less(record.monthlyUsed) : record.monthlyUsed,
    totalQueries: less(record.totalQueries),
  }
}

/** With limits of the user's own alone: those of the tier before change to those of the tier after. */
function patched(
  settings: UsageSettings,
  userId: string,
  record: UsageRecord,
  { tier, dailyLimit, monthlyLimit }: UsagePatch,
): UsageRecord {
  const own = withoutTierLimits(settings, userId, record)
  return {
    ...own,
    tier: tier ?? own.tier ?? tierOfNew(settings, userId),
    dailyLimit: dailyLimit === undefined ? own.dailyLimit : dailyLimit,
    monthlyLimit: monthlyLimit === undefined ? own.monthlyLimit : monthlyLimit,
  }
}
