import { isThreadbaseError } from '../../core/errors.ts'
import { LOCAL_USER } from '../../core/scope.ts'
import type { Database } from '../../db/database.ts'
import { NO_LIMIT, type UsageRecord, type UsageService, type UsageSettings } from '../../usage/schema.ts'
import { readUsageFile } from '../../usage/service.ts'
import { Refusal } from './read.ts'
import { findUsage } from './repo.ts'
import type { MoveLine } from './schema.ts'

export type UsageSlices = Pick<Database, 'db'> & {
  usage: Pick<UsageService, 'importRecords' | 'records'>
  /** What the tiers are. */
  settings: UsageSettings
}

export type UsageOfFile = { file: string; userId: string; record: UsageRecord }

/** @throws Refusal */
export function readUsage(file: string, userId: string, value: unknown): UsageOfFile {
  try {
    return { file, userId, record: { ...readUsageFile(value), file: value as Record<string, unknown> } }
  } catch (error) {
    if (isThreadbaseError(error)) throw new Refusal(error.message)
    throw error
  }
}

/** Keeps the counters of users who have none. */
export async function storeUsage(
  { db, usage }: UsageSlices,
  files: UsageOfFile[],
  dryRun: boolean,
): Promise<MoveLine[]> {
  const made = new Set(
    dryRun
      ? await findNew(
          db,
          files.map(({ userId }) => userId),
        )
      : await usage.importRecords(new Map(files.map(({ userId, record }) => [userId, record]))),
  )
  return files.map(({ file, userId }) =>
    made.has(userId)
      ? { file, kind: 'usage', status: 'moved', userId }
      : {
          file,
          kind: 'usage',
          status: 'known',
          userId,
          reason: 'the user has counters: they stay as they are',
        },
  )
}

async function findNew(db: Database['db'], userIds: string[]): Promise<string[]> {
  const known = new Set(await findUsage(db, userIds))
  return userIds.filter((userId) => !known.has(userId))
}

/**
 * Whether a file says the same as a record: what it leaves out is what users have who have none of their own, and a day
 * that it does not know is any.
 */
export function saysTheSame(
  { settings }: UsageSlices,
  userId: string,
  file: unknown,
  record: UsageRecord,
): boolean {
  const whole = ({ tier, dailyLimit, monthlyLimit, file: _, ...others }: UsageRecord) => {
    const name = tier ?? (userId === LOCAL_USER ? settings.localTier : settings.defaultTier)
    const limits = settings.tiers.get(name)
    const limit = (own: number | null, ofTier: number | null | undefined) => own ?? ofTier ?? NO_LIMIT
    return {
      ...others,
      tier: name,
      dailyLimit: limit(dailyLimit, limits?.daily),
      monthlyLimit: limit(monthlyLimit, limits?.monthly),
    }
  }
  try {
    const said = whole(readUsageFile(file))
    const kept = whole(record)
    return Object.entries(said).every(
      ([name, value]) =>
        value === kept[name as keyof typeof kept] || (name.startsWith('lastReset') && value === null),
    )
  } catch (error) {
    if (isThreadbaseError(error)) return false
    throw error
  }
}
