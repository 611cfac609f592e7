import type { Blobs } from '../../blobs/blobs.ts'
import type { Database } from '../../db/database.ts'
import { type CollectOptions, type CollectReport, createCollect } from './collect.ts'
import { createVerify, type VerifyOptions, type VerifyReport } from './verify.ts'

export type { CollectOptions, CollectReport } from './collect.ts'
export type { BlobProblem, VerifyOptions, VerifyReport } from './verify.ts'

export type BlobUpkeep = ReturnType<typeof createBlobUpkeep>

/**
 * What keeps storage and database in step, for operators: of all users. While it runs, everything else goes on; several at
 * the same time do each other no harm.
 * @param database the privileged handle of it
 */
export function createBlobUpkeep({ db }: Pick<Database, 'db'>, blobs: Blobs) {
  const collect = createCollect(db, blobs)
  const verify = createVerify(db, blobs)
  return {
    /**
     * Removes bytes that no artifact and no file names: those of deleted ones, of uploads that broke off, and those that the
     * database knows nothing of. Also deletes files that have expired. Memory is bounded, time linear.
     * @throws unavailable when storage or database does not answer; what was removed by then is removed
     */
    collect: (options: CollectOptions = {}): Promise<CollectReport> => collect(options),

    /**
     * Looks for bytes that are named and missing or not what they were. Changes nothing.
     * @throws unavailable when storage or database does not answer
     */
    verify: (options: VerifyOptions = {}): Promise<VerifyReport> => verify(options),
  }
}
