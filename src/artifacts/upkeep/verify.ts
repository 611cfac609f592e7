import { createHash } from 'node:crypto'
import type { Blobs } from '../../blobs/blobs.ts'
import { isThreadbaseError } from '../../core/errors.ts'
import type { Db } from '../../db/schema.ts'
import * as repo from './repo.ts'
import { forEach, placeOf } from './walks.ts'

export type VerifyOptions = {
  /** Only looks whether the bytes are there, as many as they should be. Default false: reads all of them. */
  quick?: boolean
  onProblem?: (problem: BlobProblem) => void
  onProgress?: (share: number, report: Readonly<VerifyReport>) => void
  signal?: AbortSignal
}

export type BlobProblem = {
  sha256: string
  /** `unreadable`: the storage has them and fails to give them. */
  problem: 'missing' | 'corrupt' | 'unreadable'
  /** In bytes: what it should be, and what is there (null: nothing). */
  size: number
  found: number | null
  /** What names the bytes, the first 10. */
  namedBy: repo.NamedBy[]
}

export type VerifyReport = {
  checked: number
  checkedBytes: number
  missing: number
  corrupt: number
  unreadable: number
}

const BATCH = 200
const AT_ONCE = 4
const MAX_NAMES = 10

/** See {@link BlobUpkeep.verify}. */
export function createVerify(db: Db, blobs: Blobs) {
  return async function verify(options: VerifyOptions = {}): Promise<VerifyReport> {
    const { quick = false, onProblem, onProgress, signal } = options
    const report: VerifyReport = { checked: 0, checkedBytes: 0, missing: 0, corrupt: 0, unreadable: 0 }
    for (let after = ''; ; ) {
      const rows = await repo.listNamed(db, after, BATCH)
      await forEach(rows, AT_ONCE, async (row) => {
        if (signal?.aborted === true) return
        const problem = await check(row, quick)
        report.checked++
        report.checkedBytes += row.size
        if (problem !== undefined) {
          report[problem.problem]++
          onProblem?.(problem)
        }
        onProgress?.(placeOf(row.sha256), report)
      })
      const last = rows.at(-1)
      if (last === undefined || rows.length < BATCH || signal?.aborted === true) return report
      after = last.sha256
    }
  }

  /** Undefined when nothing is wrong, or when nobody names the bytes any more. */
  async function check({ sha256, size }: repo.BlobRow, quick: boolean): Promise<BlobProblem | undefined> {
    const stored = await blobs.find(sha256)
    const found = stored?.size ?? null
    const problem =
      found === null ? 'missing' : found !== size ? 'corrupt' : quick ? undefined : await read(sha256)
    if (problem === undefined) return undefined
    const namedBy = await repo.listNames(db, sha256, MAX_NAMES)
    return namedBy.length === 0 ? undefined : { sha256, problem, size, found, namedBy }
  }

  async function read(sha256: string): Promise<BlobProblem['problem'] | undefined> {
    try {
      const hash = createHash('sha256')
      for await (const chunk of await blobs.read(sha256)) hash.update(chunk as Uint8Array)
      return hash.digest('hex') === sha256 ? undefined : 'corrupt'
    } catch (error) {
      return isThreadbaseError(error, 'not_found') ? 'missing' : 'unreadable'
    }
  }
}
