import { hash } from 'node:crypto'
import type { Blobs } from '../../../blobs/blobs.ts'
import { newId } from '../../../core/ids.ts'
import type { Database } from '../../../db/database.ts'
import type { Db } from '../../../db/schema.ts'
import { insertFound, takeOrphans } from '../repo.ts'
import { LEASE_S, REMOVE_AT_ONCE, removeTaken } from '../taken.ts'
import { forEach } from '../walks.ts'
import * as repo from './repo.ts'

export type ErasedBytes = {
  /** Rows that named bytes, by table. */
  rows: { artifacts: number; files: number; uploads: number }
  /** Bytes that nobody else named: how many hashes, and how many bytes. */
  removed: number
  removedBytes: number
  /**
   * Hashes that nobody names, but that somebody stored again meanwhile, or for which there was no time: the next collection
   * removes them.
   */
  left: number
}

export type ByteErasure = ReturnType<typeof createByteErasure>

const BATCH = 200

type Kept = Map<string, Date>

/** Fails when nothing of the user may be removed any more; otherwise that stays so to the end of the transaction. */
type Hold = (tx: Db) => Promise<void>
type Run = { report: ErasedBytes; kept: Kept; hold: Hold }

/**
 * Removes what users have in the storage, with the rows that name it.
 *
 * As the collector does it: rows of `blobs` that nobody names are taken together with the user's rows in one
 * transaction, which notes the removal; then the bytes go, then the note. It does not wait for a grace period, since it
 * knows who stored the bytes last: what was touched after the user's own row was made is somebody else's. The notes of a
 * user have a name that is made from the user's, by which the next erasure finds what one that was killed left.
 * @param db the privileged handle
 */
export function createByteErasure(db: Database['db'], blobs: Blobs) {
  const take = async (tx: Db, collector: string, released: repo.Released[]) => {
    if (released.length === 0) return []
    const locked = await repo.lockReleased(tx, released)
    const hashes = locked.map(({ sha256 }) => sha256)
    return hashes.length === 0 ? [] : takeOrphans(tx, collector, hashes, LEASE_S)
  }

  /**
   * What the rows of one transaction released goes before the next one begins.
   * @param kept what stays so far, with the last time at which the user may have stored it: of two rows that name the same
   *   bytes the one that is deleted first may be the later one
   */
  async function release(
    collector: string,
    { report, kept, hold }: Run,
    deleteRows: (tx: Db) => Promise<repo.Released[]>,
  ): Promise<number> {
    const started = performance.now()
    const { released, taken } = await db.transaction().execute(async (tx) => {
      await hold(tx)
      const released = (await deleteRows(tx)).map(({ sha256, until }) => {
        const earlier = kept.get(sha256)
        return { sha256, until: earlier !== undefined && earlier > until ? earlier : until }
      })
      return { released, taken: await take(tx, collector, released) }
    })
    report.left += taken.length - (await removeTaken({ db, blobs }, taken, { collector, report }, started))
    for (const { sha256, until } of released) {
      const earlier = kept.get(sha256)
      if (earlier === undefined || earlier < until) kept.set(sha256, until)
    }
    for (const { sha256 } of taken) kept.delete(sha256)
    return released.length
  }

  async function countLeft(kept: Kept): Promise<number> {
    const hashes = [...kept.keys()]
    let left = 0
    for (let i = 0; i < hashes.length; i += BATCH)
      left += await repo.countUnnamed(db, hashes.slice(i, i + BATCH))
    return left
  }

  /** Goes on where an erasure ended that was killed between its transaction and the storage. */
  async function resume(collector: string, so: Run): Promise<void> {
    const noted = await repo.listRemovals(db, collector)
    for (let i = 0; i < noted.length; i += BATCH) {
      const found: { sha256: string; size: number; modifiedAt: Date }[] = []
      await forEach(noted.slice(i, i + BATCH), REMOVE_AT_ONCE, async (sha256) => {
        const blob = await blobs.find(sha256)
        if (blob !== undefined) found.push(blob)
      })
      // what got a row since then is no longer what was left
      await release(newId(), so, async (tx) => {
        if (found.length > 0) await insertFound(tx, found)
        return found.map(({ sha256, modifiedAt }) => ({ sha256, until: modifiedAt }))
      })
    }
    // those that count still may be of a request that is under way in the storage
    await repo.deleteEndedRemovals(db, collector)
  }

  return {
    /**
     * Removes all of it. Again, or after it was killed: the rest.
     * @param hold as of a tombstone, which each transaction asks first
     * @throws what `hold` throws; unavailable when storage or database does not answer; what was removed by then is removed
     */
    async erase(userId: string, hold: Hold): Promise<ErasedBytes> {
      const collector = collectorOf(userId)
      const report: ErasedBytes = {
        rows: { artifacts: 0, files: 0, uploads: 0 },
        ...{ removed: 0, removedBytes: 0, left: 0 },
      }
      const so = { report, kept: new Map(), hold }
      await resume(collector, so)
      for (const table of repo.NAMING_TABLES)
        for (let last = BATCH; last > 0; report.rows[table] += last)
          last = await release(collector, so, (tx) => repo.deleteNames(tx, table, userId, BATCH))
      for (;;) {
        const uploads = await db.transaction().execute(async (tx) => {
          await hold(tx)
          return repo.listUploads(tx, userId, BATCH)
        })
        if (uploads.length === 0) return { ...report, left: report.left + (await countLeft(so.kept)) }
        // before their rows, which say where they are
        await forEach(uploads, REMOVE_AT_ONCE, ({ objectKey }) => blobs.removeUpload(objectKey))
        report.rows.uploads += await release(collector, so, async (tx) => {
          await repo.deleteUploads(
            tx,
            userId,
            uploads.map(({ id }) => id),
          )
          return uploads.map(({ released }) => released)
        })
      }
    },

    /** What {@link erase} would remove of the storage. */
    count: (userId: string) => repo.countBytes(db, userId),
  }
}

/** A UUID (version 8, RFC 9562) that is always the same one for a user. */
function collectorOf(userId: string): string {
  const hex = hash('sha256', `erase\0${userId}`, 'hex')
  return [
    hex.slice(0, 8),
    hex.slice(8, 12),
    `8${hex.slice(13, 16)}`,
    `8${hex.slice(17, 20)}`,
    hex.slice(20, 32),
  ].join('-')
}
