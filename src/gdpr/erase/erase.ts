import type { ByteErasure } from '../../artifacts/service.ts'
import { ThreadbaseError } from '../../core/errors.ts'
import { isSqlState } from '../../db/errors.ts'
import type { Db } from '../../db/schema.ts'
import type { ErasureCount } from '../schema.ts'
import * as repo from './repo.ts'
import { ERASED_TABLES } from './tables.ts'

export type EraseProgress = {
  /** Rows that are deleted by now. */
  rows: number
  /** The table that is at work. */
  table: string
}

// of small rows: what other statements wait for, a page or a lock, is theirs again within milliseconds
const BATCH = 2_000
/** Of rows that may be large, or that take others along. */
const SMALL_BATCH = 200
const LARGE_ROWS: ReadonlySet<string> = new Set([
  'threads',
  'checkpoint_blobs',
  'checkpoints',
  'checkpoint_writes',
])

const DEADLOCK = '40P01'
const MAX_TRIES = 5

/**
 * Removes rows and bytes of a user whose tombstone is there. Each batch is a transaction of its own.
 * @throws conflict once the user is readmitted, which another erasure of the same user made possible by its end: what is
 *   stored from then on stays
 */
export async function eraseAll(
  db: Db,
  bytes: ByteErasure,
  userId: string,
  onProgress: (progress: EraseProgress) => void,
): Promise<ErasureCount & { blobsLeft: number }> {
  let total = 0
  const rows: Record<string, number> = {}
  const note = (table: string, count: number) => {
    if (count > 0) rows[table] = (rows[table] ?? 0) + count
    total += count
    onProgress({ rows: total, table })
  }
  // before threads, which would take their artifacts along and leave the bytes
  const hold = async (tx: Db) => {
    if (!(await repo.holdTombstone(tx, userId))) throw readmitted(userId)
  }
  const erased = await bytes.erase(userId, hold)
  for (const [table, count] of Object.entries(erased.rows)) note(table, count)
  for (const table of ERASED_TABLES) {
    const limit = LARGE_ROWS.has(table.name) ? SMALL_BATCH : BATCH
    const deleteBatch = (after: string[] | undefined) =>
      db.transaction().execute(async (tx) => {
        await hold(tx)
        return repo.deleteRows(tx, table, userId, { after, limit })
      })
    await drain(deleteBatch, (count) => note(table.name, count))
  }
  return { rows, blobs: erased.removed, blobBytes: erased.removedBytes, blobsLeft: erased.left }
}

/** Until a round from the beginning finds nothing more. */
async function drain(
  deleteBatch: (after: string[] | undefined) => Promise<repo.Deleted>,
  note: (count: number) => void,
): Promise<void> {
  for (let inRound = 1; inRound > 0; ) {
    inRound = 0
    let after: string[] | undefined
    do {
      const { found, last } = await patiently(() => deleteBatch(after))
      inRound += found
      note(found)
      after = last
    } while (after !== undefined)
  }
}

export function readmitted(userId: string): ThreadbaseError {
  const message = `user ${userId} was let in again while the data was erased: what was stored since then is there`
  return new ThreadbaseError('conflict', message, { userId })
}

/** Two erasures of one user at the same time may wait for each other: PostgreSQL ends one of the statements. */
async function patiently<T>(work: () => Promise<T>): Promise<T> {
  for (let tries = 1; ; tries++) {
    try {
      return await work()
    } catch (error) {
      if (tries === MAX_TRIES || !isSqlState(error, DEADLOCK)) throw error
    }
  }
}
