import type { AuditService } from '../audit/service.ts'
import { ThreadbaseError } from '../core/errors.ts'
import { type Scope, userOf } from '../core/scope.ts'
import type { Database } from '../db/database.ts'
import { createConsumeQueue } from './consume-queue.ts'
import { describePatch, requireCount, requirePatch, requireReceipt } from './input.ts'
import * as repo from './repo.ts'
import {
  brokenLimit,
  dayOf,
  monthOf,
  mostAtOnce,
  newRecord,
  quotaExceeded,
  tierOf,
  tierOfNew,
  toUsage,
  withLimits,
  withoutTierLimits,
} from './rules.ts'
import type { Consumed, Usage, UsageRecord, UsageService, UsageSettings } from './schema.ts'
import { MAX_TOTALS, requireRange, tooManyTotals } from './totals/range.ts'
import { sumMessages } from './totals/repo.ts'

export { readUsageFile, writeUsageFile } from './files.ts'
export { createJsonUsage, type JsonUsageOptions, type UsageMessage } from './json/service.ts'
export type { UsageService, UsageSettings } from './schema.ts'

type Parts = {
  audit: AuditService
  settings: UsageSettings
  /** Default: that of the database, which all servers share. */
  clock?: () => Date
}

// when a limit was in the way that is not any more: somebody gave back, or the day turned
const TRIES = 3
// a statement that counts mostly waits for the disk: more of them, with fewer users each, than the engine works on at once
const LANES = 2
const PAGE = 1_000
const BATCH = 10_000

/** Counts what users ask, in rows. Those are written with the system's own handle: a user may only read theirs. */
export function createUsageService(
  { db, forUser, parallelism }: Pick<Database, 'db' | 'forUser' | 'parallelism'>,
  { audit, settings, clock }: Parts,
): UsageService {
  const clockNow = () => clock?.()
  const consume = createConsumeQueue(repo.prepareConsume(db, settings, clockNow), {
    lanes: LANES * parallelism,
  })
  const find = async (userId: string): Promise<{ usage: Usage; now: Date }> => {
    const { now, today, ...row } = await repo.findRow(forUser(userId), userId, clockNow())
    const record = row.dailyUsed === null ? newRecord(settings, userId) : (row as UsageRecord)
    return { usage: toUsage(settings, userId, record, today), now }
  }
  return {
    async consume(scope: Scope, n = 1): Promise<Consumed> {
      const userId = userOf(scope)
      requireCount(n)
      const tier = tierOfNew(settings, userId)
      const mostOfNew = mostAtOnce(tierOf(settings, tier))
      for (let tries = 0; tries < TRIES; tries++) {
        const row = await consume({ userId, n, tier, mostOfNew })
        if (row !== undefined) {
          const day = row.lastResetDaily as string
          return { usage: toUsage(settings, userId, row, day), receipt: { n, day, month: monthOf(day) } }
        }
        const { usage, now } = await find(userId)
        const limit = brokenLimit(usage, n)
        if (limit !== undefined) throw quotaExceeded(usage, n, limit, now)
      }
      throw new ThreadbaseError('unavailable', 'the counters change too fast at the moment: try again')
    },

    async refund(scope, receipt) {
      await repo.giveBack(db, userOf(scope), requireReceipt(receipt))
    },

    read: async (scope) => (await find(userOf(scope))).usage,

    async set(actor, user, input) {
      const userId = userOf({ userId: user })
      const patch = requirePatch(settings, input)
      const row = await repo.setLimits(db, userId, patch, tierOfNew(settings, userId), clockNow())
      await audit.record(actor, 'tier_changed', userId, describePatch(patch))
      return toUsage(settings, userId, row, row.today)
    },

    async totals(scope, query = {}) {
      const userId = userOf(scope)
      const range = requireRange(query, dayOf(clockNow() ?? new Date()))
      const totals = await sumMessages(forUser(userId), userId, range)
      if (totals.length > MAX_TOTALS) throw tooManyTotals()
      return totals
    },

    async importRecords(records) {
      const rows = [...records].map(([user, record]) => {
        const userId = userOf({ userId: user })
        const tier = record.tier ?? tierOfNew(settings, userId)
        return { userId, record: { ...withoutTierLimits(settings, userId, record), tier } }
      })
      const imported: string[] = []
      for (let at = 0; at < rows.length; at += BATCH)
        imported.push(...(await repo.insertRows(db, rows.slice(at, at + BATCH))))
      return imported
    },

    async *records() {
      let after = ''
      for (;;) {
        const rows = await repo.listRows(db, after, PAGE)
        for (const { userId, ...record } of rows)
          yield { userId, record: withLimits(settings, userId, record) }
        const last = rows.at(-1)
        if (last === undefined || rows.length < PAGE) return
        after = last.userId
      }
    },
  }
}
