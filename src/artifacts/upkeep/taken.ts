import type { Blobs } from '../../blobs/blobs.ts'
import type { Db } from '../../db/schema.ts'
import * as repo from './repo.ts'
import { forEach } from './walks.ts'

export const REMOVE_AT_ONCE = 16
/** How long a note of a removal is good for, and until when one is begun: between them any of the storage's attempts ends. */
export const LEASE_S = 300
const START_WITHIN_MS = 100_000

/** Whose notes they are, and where what was removed is counted. */
type Removal = { collector: string; report: { removed: number; removedBytes: number } }

/**
 * Removes the bytes of rows that were taken, then their notes. What is left when this fails has no row any more: the next
 * collection finds it in the storage. Its notes stay until they end, since a removal that failed here may still be under
 * way there.
 * @param started when the notes were written, by `performance.now()`
 * @returns how many were removed: not all when it takes too long
 */
export async function removeTaken(
  { db, blobs }: { db: Db; blobs: Blobs },
  taken: repo.BlobRow[],
  { collector, report }: Removal,
  started: number,
): Promise<number> {
  const removed: string[] = []
  await forEach(taken, REMOVE_AT_ONCE, async ({ sha256, size }) => {
    // a removal must have ended when its note does
    if (performance.now() - started > START_WITHIN_MS) return
    await blobs.remove(sha256)
    removed.push(sha256)
    report.removed++
    report.removedBytes += size
  })
  if (removed.length > 0) await repo.endRemovals(db, collector, removed)
  return removed.length
}
