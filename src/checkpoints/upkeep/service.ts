import { ThreadbaseError } from '../../core/errors.ts'
import { decodeCursor, encodeCursor, type Page, toPage } from '../../core/pages.ts'
import type { Database } from '../../db/database.ts'
import type { Db } from '../../db/schema.ts'
import { invalid, requireText } from '../run-config.ts'
import * as repo from './repo.ts'

/** Which checkpoints go. */
export type PruneOptions = {
  /** Default: all of the user. */
  threadIds?: string[]
  /** Only checkpoints older than this. Default: of any age. */
  olderThanS?: number
  /** How many of the newest of every namespace stay in any case. Default 1; 0 may empty a thread. */
  keepLatest?: number
}

/** How many rows went. */
export type Removed = { checkpoints: number; writes: number; blobs: number }

/** A thread that has checkpoints. */
export type StateThread = {
  threadId: string
  /** The newest, whatever its namespace. */
  checkpointId: string
  updatedAt: Date
}

/** Every user who has checkpoints, by id: for operators. */
export async function* listStateUsers({ db }: Pick<Database, 'db'>): AsyncGenerator<string> {
  let user: string | undefined = ''
  while (user !== undefined) {
    user = await repo.nextUser(db, user)
    if (user !== undefined) yield user
  }
}

export type Upkeep = ReturnType<typeof createUpkeep>

const CURSOR = 'checkpoint threads'
const MAX_LIMIT = 1_000
// a write that is on its way arrives within a statement's time, or never
const TOMBSTONE_S = 3_600
// what was stored while it waited for the lock must be seen, whatever the default of the database
const ISOLATION = 'read committed'

/** What is done to whole threads. Each thread is one transaction, with every put of it kept waiting. */
export function createUpkeep(database: Pick<Database, 'forUser'>) {
  const alone = <T>(userId: string, threadId: string, act: (tx: Db) => Promise<T>): Promise<T> =>
    database
      .forUser(userId)
      .transaction()
      .setIsolationLevel(ISOLATION)
      .execute(async (tx) => {
        await repo.lockThread(tx, userId, threadId)
        return act(tx)
      })

  async function removeFrom(userId: string, threadIds: string[], doomed: repo.Doomed) {
    const removed = { checkpoints: 0, writes: 0, blobs: 0, threadIds }
    for (const threadId of threadIds) {
      await alone(userId, threadId, async (tx) => {
        removed.checkpoints += await repo.hideCheckpoints(tx, userId, threadId, doomed)
        removed.writes += await repo.removeHidden(tx, userId, threadId, TOMBSTONE_S)
        removed.blobs += await repo.sweepBlobs(tx, userId, threadId)
      })
    }
    await repo.sweepTombstones(database.forUser(userId), userId, TOMBSTONE_S)
    return removed
  }

  return {
    /** Removes what no checkpoint of the thread uses any more. */
    sweep: (userId: string, threadId: string) =>
      alone(userId, threadId, (tx) => repo.sweepBlobs(tx, userId, threadId)),

    deleteThread: (userId: string, threadId: string): Promise<void> =>
      repo.deleteThread(database.forUser(userId), userId, threadId, TOMBSTONE_S),

    async prune(userId: string, { threadIds, olderThanS, keepLatest = 1 }: PruneOptions) {
      if (!Number.isInteger(keepLatest) || keepLatest < 0)
        throw invalid('prune keepLatest must be a whole number', 'keepLatest')
      if (olderThanS !== undefined && !(Number.isFinite(olderThanS) && olderThanS >= 0)) {
        throw invalid('prune olderThanS must be a number of seconds', 'olderThanS')
      }
      for (const id of threadIds ?? []) requireText(id, 'prune threadIds')
      const ids = threadIds ?? (await repo.listThreadIds(database.forUser(userId), userId))
      return removeFrom(userId, [...new Set(ids)], { olderThanS, keepLatest })
    },

    async deleteForRuns(userId: string, runIds: string[]) {
      const wanted = runIds.map((id) => requireText(id, 'run id'))
      const ids = await repo.listThreadIds(database.forUser(userId), userId, wanted)
      return removeFrom(userId, ids, { runIds: wanted })
    },

    async copyThread(userId: string, source: string, target: string): Promise<void> {
      const { copied, taken } = await database
        .forUser(userId)
        .transaction()
        .setIsolationLevel(ISOLATION)
        .execute(async (tx) => {
          await repo.lockThreads(tx, userId, [source, target])
          return repo.copyThread(tx, userId, source, target)
        })
      if (taken)
        throw new ThreadbaseError('conflict', `thread ${target} has checkpoints already`, {
          threadId: target,
        })
      if (copied === 0)
        throw new ThreadbaseError('not_found', `thread ${source} has no checkpoints`, { threadId: source })
    },

    async listThreads(
      userId: string,
      { limit = 50, cursor }: { limit?: number; cursor?: string },
    ): Promise<Page<StateThread>> {
      if (!Number.isInteger(limit) || limit < 1 || limit > MAX_LIMIT) {
        throw invalid(`list limit must be between 1 and ${MAX_LIMIT}`, 'limit')
      }
      const [after] = cursor === undefined ? [''] : decodeCursor(CURSOR, ['string'], cursor)
      const rows = await repo.listThreads(
        database.forUser(userId),
        userId,
        requireText(after, 'cursor', true),
        limit + 1,
      )
      return toPage(rows, limit, ({ threadId }) => encodeCursor(CURSOR, [threadId]))
    },
  }
}
