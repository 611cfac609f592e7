import { isThreadbaseError } from '../../core/errors.ts'
import type { Database } from '../../db/database.ts'
import type { UsageRecord, UsageService } from '../../usage/schema.ts'
import { readUsageFile } from '../../usage/service.ts'
import { Refusal } from './read.ts'
import { findUsage } from './repo.ts'
import type { MoveLine } from './schema.ts'

export type UsageSlices = Pick<Database, 'db'> & { usage: Pick<UsageService, 'importRecords' | 'records'> }

export type UsageOfFile = { file: string; userId: string; record: UsageRecord }

/** @throws Refusal */
export function readUsage(file: string, userId: string, value: unknown): UsageOfFile {
  try {
    return { file, userId, record: readUsageFile(value) }
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
