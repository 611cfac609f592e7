import type { Readable } from 'node:stream'
import { type ByteErasure, createByteErasure } from '../artifacts/service.ts'
import type { Actor } from '../audit/schema.ts'
import type { AuditService } from '../audit/service.ts'
import type { Blobs } from '../blobs/blobs.ts'
import { ThreadbaseError } from '../core/errors.ts'
import { type Scope, userOf } from '../core/scope.ts'
import type { Database } from '../db/database.ts'
import type { Db } from '../db/schema.ts'
import { type EraseProgress, eraseAll, readmitted } from './erase/erase.ts'
import * as repo from './erase/repo.ts'
import { type ExportParts, type ExportProgress, type ExportReport, startExport } from './export/export.ts'
import type { ErasureCount, ErasureReport, Tombstone } from './schema.ts'

export type GdprService = ReturnType<typeof createGdprService>

export type { EraseProgress } from './erase/erase.ts'
export type { ExportProgress, ExportReport } from './export/export.ts'
export { idInName } from './export/names.ts'

export type GdprParts = ExportParts & {
  database: Pick<Database, 'db' | 'forUser' | 'engine' | 'parallelism'>
  blobs: Blobs
  audit: AuditService
  // not taken from IdentityService, in whose published types it is not
  identity: { forget(userId: string): Promise<void> }
  /** Makes every process forget what it remembers of the user's state. */
  forget(userId: string): void | Promise<void>
}

export type EraseOptions = {
  /** Refuses to erase the last superuser who is active. Default false. */
  keepLastSuperuser?: boolean
  onProgress?: (progress: EraseProgress) => void
}

export type ExportOptions = { onProgress?: (progress: ExportProgress) => void }

/** An archive that is made while it is read. */
export type UserExport = {
  /** A zip. Who reads it no longer destroys it. It fails when what was to be in it cannot be read. */
  stream: Readable
  /** What is in it, once it is whole; fails as the stream does. */
  report: Promise<ExportReport>
}

const RETRY_AFTER_S = 10

/** Hands a user's data over, and erases it. */
export function createGdprService(parts: GdprParts) {
  const { database, audit, identity } = parts
  const { db } = database
  const bytes: ByteErasure = createByteErasure(db, parts.blobs)

  /** Counts rows and bytes that {@link erase} would remove. @throws not_found for a user of whom there is nothing */
  async function count(scope: Scope): Promise<ErasureCount> {
    const userId = userOf(scope)
    const [rows, stored] = await Promise.all([repo.countRows(db, userId), bytes.count(userId)])
    const found = Object.entries(rows).filter(([, count]) => count > 0)
    if (found.length === 0 && (await repo.findTombstone(db, userId)) === undefined) throw nothingOf(userId)
    return { rows: Object.fromEntries(found), blobs: stored.unshared, blobBytes: stored.unsharedBytes }
  }

  const exporting = new Set<string>()
  // each may hold a connection for as long as its rows take to be read
  const most = Math.max(1, Math.floor(database.parallelism / 4))

  function take(userId: string): () => void {
    if (exporting.has(userId)) throw tooMany('an export of yours is under way: read it to its end first')
    if (exporting.size >= most) throw tooMany(`${most} exports are under way: try again later`)
    exporting.add(userId)
    return () => exporting.delete(userId)
  }

  async function begin(userId: string, keepLastSuperuser: boolean): Promise<Tombstone> {
    return db.transaction().execute(async (tx: Db) => {
      if (keepLastSuperuser) {
        const superusers = await repo.lockSuperusers(tx)
        if (superusers.length === 1 && superusers[0] === userId) throw lastSuperuser(userId)
      }
      return repo.insertTombstone(tx, userId)
    })
  }

  return {
    count,

    /**
     * Everything of a user in one zip: a file of JSON Lines for each kind of thing, the bytes of artifacts and files, and a
     * manifest. It is made as it is read; little of it is in memory. Secrets are masked.
     * @throws not_found for a user of whom there is nothing; rate_limited while another export of the user, or too many of
     *   others, are under way
     */
    async export(scope: Scope, actor: Actor, { onProgress }: ExportOptions = {}): Promise<UserExport> {
      const userId = userOf(scope)
      const end = take(userId)
      try {
        if (!(await repo.hasRows(db, userId))) throw nothingOf(userId)
        await audit.record(actor, 'data_exported', userId)
      } catch (error) {
        end()
        throw error
      }
      const { archive, done } = startExport(parts, userId, onProgress ?? (() => {}))
      const report = done.finally(end)
      // who reads the stream gets it there
      report.catch(() => {})
      return { stream: archive.stream, report }
    },

    /**
     * Removes all of a user: every row of every table but the audit log, and the bytes that nobody else names. From the
     * first moment on nothing of the user is stored any more, and the user's credentials are refused; a tombstone says so
     * until {@link readmit}. Others wait for nothing. When it is ended in the middle, the next one removes the rest. Of a
     * user who was erased already it removes what there is, which is nothing.
     * @throws not_found for a user of whom there is nothing; conflict for the last superuser, where that is asked for, and
     *   for a user who was let in again meanwhile, after another erasure that ended earlier;
     *   unavailable when storage or database does not answer: try again
     */
    async erase(scope: Scope, actor: Actor, options: EraseOptions = {}): Promise<ErasureReport> {
      const userId = userOf(scope)
      const before = await repo.findTombstone(db, userId)
      if (before === undefined && !(await repo.hasRows(db, userId))) throw nothingOf(userId)
      const { erasedAt } = await begin(userId, options.keepLastSuperuser ?? false)
      await audit.record(actor, 'data_erased', userId)
      await identity.forget(userId)
      await repo.awaitWriters(db, userId)
      await parts.forget(userId)
      const done = await eraseAll(db, bytes, userId, options.onProgress ?? (() => {}))
      const finishedAt = await repo.finishTombstone(db, userId)
      if (finishedAt === undefined) throw readmitted(userId)
      return { userId, erasedAt, finishedAt, wasErased: (before?.finishedAt ?? null) !== null, ...done }
    },

    /** Undefined for a user whose data was not erased. */
    findTombstone: (scope: Scope): Promise<Tombstone | undefined> => repo.findTombstone(db, userOf(scope)),

    /**
     * Lets a user in again whose data was erased: what they store is kept from now on. Nothing comes back.
     * @throws not_found for a user who was not erased; conflict while the erasure is not finished
     */
    async readmit(scope: Scope, actor: Actor): Promise<void> {
      const userId = userOf(scope)
      if (!(await repo.deleteTombstone(db, userId))) {
        if ((await repo.findTombstone(db, userId)) === undefined)
          throw new ThreadbaseError('not_found', `the data of user ${userId} was not erased`, { userId })
        const message = `the erasure of user ${userId} is not finished: erase again first`
        throw new ThreadbaseError('conflict', message, { userId })
      }
      await audit.record(actor, 'user_readmitted', userId)
      await identity.forget(userId)
    },
  }
}

function nothingOf(userId: string): ThreadbaseError {
  return new ThreadbaseError('not_found', `there is nothing of user ${userId}`, { userId })
}

function tooMany(message: string): ThreadbaseError {
  return new ThreadbaseError('rate_limited', message, { retryAfterS: RETRY_AFTER_S })
}

function lastSuperuser(userId: string): ThreadbaseError {
  const message =
    'you are the last superuser: make somebody else one first, or nobody can manage this installation'
  return new ThreadbaseError('conflict', message, { userId })
}
