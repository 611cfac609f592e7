import type { Blobs, StoredBlob } from '../../blobs/blobs.ts'
import { newId } from '../../core/ids.ts'
import type { Database } from '../../db/database.ts'
import * as repo from './repo.ts'
import { LEASE_S, REMOVE_AT_ONCE, removeTaken } from './taken.ts'
import { forEach, placeOf } from './walks.ts'

export type CollectOptions = {
  /** Seconds for which bytes that nobody names are left alone after somebody stored them: longer than it takes to name them. Default: an hour. */
  graceS?: number
  /** The same for what was uploaded and not completed. Default: a day. */
  uploadGraceS?: number
  /**
   * Whether bytes that the database knows nothing of are removed even when they are more than a tenth of all: then it may be
   * the wrong database. Default false: they are left alone, and counted.
   */
  strays?: boolean
  /** Only counts. */
  dryRun?: boolean
  /** `share`: how much is done, from 0 to 1. */
  onProgress?: (share: number, report: Readonly<CollectReport>) => void
  /** Ends it after the batch that is under way, with what was done so far. */
  signal?: AbortSignal
}

export type CollectReport = {
  /** Bytes that nobody named: how many hashes, and how many bytes. With `dryRun`: that would be removed. */
  removed: number
  removedBytes: number
  /** Of these, how many the database knew nothing of. */
  strays: number
  /** How many it knew nothing of and were left alone, since they are too many. */
  straysLeft: number
  /** Files that had expired. Their bytes are among the removed ones, unless something else names them. */
  expiredFiles: number
  /** Uploads whose URL had ended, and what was left of uploads under way in the storage. */
  expiredUploads: number
  abandonedUploads: number
  /** Unnamed ones that were left alone because of the grace period. */
  young: number
}

const HOUR_S = 3_600
const BATCH = 200
const LIST_BATCH = 1_000
const CLOCK_SKEW_MS = 60_000

/** See {@link BlobUpkeep.collect}. */
export function createCollect(db: Database['db'], blobs: Blobs) {
  return async function collect(options: CollectOptions = {}): Promise<CollectReport> {
    const { graceS = HOUR_S, uploadGraceS = 24 * HOUR_S, dryRun = false, signal } = options
    const report: CollectReport = {
      ...{ removed: 0, removedBytes: 0, strays: 0, straysLeft: 0 },
      ...{ expiredFiles: 0, expiredUploads: 0, abandonedUploads: 0, young: 0 },
    }
    const tell = (from: number, to: number) => (sha256: string) =>
      options.onProgress?.(from + (to - from) * placeOf(sha256), report)
    const run = { collector: newId(), graceS, signal, report }
    if (!dryRun) await repo.deleteExpiredRemovals(db)
    await endExpired(run, uploadGraceS, dryRun)
    await findStrays(run, options, tell(0, 0.5))
    if (dryRun) await countOrphans(run, tell(0.5, 1))
    else {
      await removeOrphans(run, tell(0.5, 1))
      if (signal?.aborted !== true)
        report.abandonedUploads = await blobs.sweepStaged(await uploadAgeMs(uploadGraceS))
    }
    report.young = await repo.countYoung(db, graceS)
    return report
  }

  async function endExpired({ graceS, report, signal }: Run, uploadGraceS: number, dryRun: boolean) {
    const uploads = Math.max(graceS, uploadGraceS)
    if (dryRun) {
      const expired = await repo.countExpired(db, uploads)
      report.expiredFiles = expired.files
      report.expiredUploads = expired.uploads
      return
    }
    const drain = async (deleteSome: () => Promise<number>) => {
      let total = 0
      for (let last = LIST_BATCH; last === LIST_BATCH && signal?.aborted !== true; total += last)
        last = await deleteSome()
      return total
    }
    report.expiredFiles = await drain(() => repo.deleteExpiredFiles(db, LIST_BATCH))
    report.expiredUploads = await drain(() => repo.deleteExpiredUploads(db, uploads, LIST_BATCH))
  }

  /** What was put to a URL is younger than its upload: nothing goes that one may still be completed with. */
  async function uploadAgeMs(uploadGraceS: number): Promise<number> {
    const oldest = await repo.oldestUpload(db)
    return Math.max(
      uploadGraceS * 1_000,
      oldest === undefined ? 0 : Date.now() - oldest.getTime() + CLOCK_SKEW_MS,
    )
  }

  /**
   * Gives bytes without a row one, in a second walk when the first one found some and not too many. Who stores bytes makes
   * the row first, so these are of removals that failed, of a database that was put back to an earlier state, or of somebody
   * who wrote into the storage. Many of them may be another installation's.
   */
  async function findStrays(run: Run, options: CollectOptions, tell: (at: string) => void) {
    const { report } = run
    const found = { all: 0, strays: 0, bytes: 0 }
    await walk(run, tell, async (batch, strays) => {
      found.all += batch.length
      found.strays += strays.length
      for (const { size } of strays) found.bytes += size
    })
    if (options.strays !== true && found.strays > found.all / 10) {
      report.straysLeft = found.strays
    } else if (options.dryRun === true) {
      report.strays = found.strays
      report.removed += found.strays
      report.removedBytes += found.bytes
    } else if (found.strays > 0) {
      await walk(
        run,
        () => {},
        async (_, strays) => {
          report.strays += strays.length
          if (strays.length > 0) await repo.insertFound(db, strays)
        },
      )
    }
  }

  /** Goes through what the storage has and is old enough, with those of each batch that the database knows nothing of. */
  async function walk(
    { graceS, signal }: Run,
    tell: (at: string) => void,
    use: (batch: StoredBlob[], strays: StoredBlob[]) => Promise<void>,
  ) {
    const before = Date.now() - graceS * 1_000
    let batch: StoredBlob[] = []
    const flush = async () => {
      const unknown = await repo.findUnknown(
        db,
        batch.map(({ sha256 }) => sha256),
      )
      const strays: StoredBlob[] = []
      await forEach([...unknown], REMOVE_AT_ONCE, async (sha256) => {
        // another collector may have been there since they were listed
        const blob = await blobs.find(sha256)
        if (blob !== undefined) strays.push(blob)
      })
      await use(batch, strays)
      const last = batch.at(-1)
      if (last !== undefined) tell(last.sha256)
      batch = []
    }
    for await (const blob of blobs.list()) {
      if (signal?.aborted === true) return
      if (blob.modifiedAt.getTime() <= before) batch.push(blob)
      if (batch.length === LIST_BATCH) await flush()
    }
    await flush()
  }

  async function removeOrphans({ collector, graceS, signal, report }: Run, tell: (at: string) => void) {
    for (let after = ''; signal?.aborted !== true; ) {
      const started = performance.now()
      const { locked, taken } = await db.transaction().execute(async (tx) => {
        const locked = await repo.lockOrphans(tx, after, graceS, BATCH)
        const hashes = locked.map(({ sha256 }) => sha256)
        return {
          locked,
          taken: hashes.length === 0 ? [] : await repo.takeOrphans(tx, collector, hashes, LEASE_S),
        }
      })
      await removeTaken({ db, blobs }, taken, { collector, report }, started)
      const last = locked.at(-1)
      if (last === undefined) return
      after = last.sha256
      tell(after)
      if (locked.length < BATCH) return
    }
  }

  async function countOrphans({ graceS, signal, report }: Run, tell: (at: string) => void) {
    for (let after = ''; signal?.aborted !== true; ) {
      const rows = await repo.listOrphans(db, after, graceS, LIST_BATCH)
      report.removed += rows.length
      for (const { size } of rows) report.removedBytes += size
      const last = rows.at(-1)
      if (last === undefined || rows.length < LIST_BATCH) return
      after = last.sha256
      tell(after)
    }
  }
}

type Run = {
  /** Of this run. */
  collector: string
  graceS: number
  signal: AbortSignal | undefined
  report: CollectReport
}
