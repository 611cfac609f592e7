import { setTimeout as delay } from 'node:timers/promises'
import { ThreadbaseError } from '../../core/errors.ts'
import type { Database } from '../../db/database.ts'
import { isSqlState } from '../../db/errors.ts'
import type { Db } from '../../db/schema.ts'
import type { Extension } from '../../db/vector-extension.ts'
import * as repo from './repo.ts'

export type BuildOptions = {
  type: repo.IndexType
  /** Of IVFFlat. Default: as many as suit the rows. */
  lists?: number
  /** What the server may use for it; without room for all vectors it is many times as slow. Default: as it is set there. */
  memoryMb?: number
  /** Gives it up; the index that was there stays. */
  signal?: AbortSignal
  /** `share` from 0 to 1, of this phase. */
  onProgress?: (phase: string, share: number) => void
}

export type BuildReport = {
  /** Null: it was given up. */
  index: repo.IndexType | null
  /** Null for HNSW. */
  lists: number | null
  vectors: number
}

const LOOK_EVERY_MS = 500

/**
 * Makes the index of embeddings, anew if there is one, which is used until then. Appends and searches go on.
 * @throws unsupported on the embedded store; unavailable without the extension and the columns; conflict while another
 *   process does the same
 */
export async function buildIndex(
  { db, schema, engine }: Pick<Database, 'db' | 'schema' | 'engine'>,
  extension: Extension | undefined,
  options: BuildOptions,
): Promise<BuildReport> {
  if (engine !== 'postgres')
    throw new ThreadbaseError(
      'unsupported',
      'the embedded store compares embeddings one by one: it has no index',
    )
  if (extension === undefined)
    throw new ThreadbaseError(
      'unavailable',
      'the database has no embeddings: `threadbase db upgrade` says what is missing',
    )
  const { type, signal } = options
  const vectors = await repo.countVectors(db)
  const lists = type === 'ivfflat' ? (options.lists ?? suitableLists(vectors)) : null
  return db.connection().execute(async (session) => {
    const pid = await repo.beginBuild(session, schema, options.memoryMb)
    if (pid === undefined)
      throw new ThreadbaseError('conflict', 'another process is making the index of embeddings')
    const cancel = () => void repo.cancelStatement(db, pid).catch(() => {})
    const watching = new AbortController()
    try {
      await repo.dropIndex(session, schema, repo.NEXT_INDEX)
      signal?.throwIfAborted()
      signal?.addEventListener('abort', cancel, { once: true })
      void watch(db, pid, options, watching.signal)
      await repo.createNextIndex(session, schema, extension, { type, lists: lists ?? undefined })
      watching.abort()
      signal?.removeEventListener('abort', cancel)
      await swap(session, schema)
      return { index: type, lists, vectors }
    } catch (error) {
      // what was begun is in the way of nothing, but every append adds to it
      await repo.dropIndex(session, schema, repo.NEXT_INDEX).catch(() => {})
      if (signal?.aborted === true) return { index: null, lists, vectors }
      throw error
    } finally {
      watching.abort()
      signal?.removeEventListener('abort', cancel)
      await repo.endBuild(session, schema)
    }
  })
}

const SWAP_TRIES = 30
const LOCK_NOT_AVAILABLE = '55P03'

/** What was made for hours is not given up since somebody holds the table for a moment. */
async function swap(session: Db, schema: string): Promise<void> {
  for (let tries = 1; ; tries++) {
    try {
      return await repo.swapIndexes(session, schema)
    } catch (error) {
      if (tries === SWAP_TRIES || !isSqlState(error, LOCK_NOT_AVAILABLE)) throw error
      await delay(LOOK_EVERY_MS)
    }
  }
}

/** As pgvector advises. */
function suitableLists(vectors: number): number {
  return Math.min(
    32_768,
    Math.max(10, Math.round(vectors > 1_000_000 ? Math.sqrt(vectors) : vectors / 1_000)),
  )
}

async function watch(
  db: Database['db'],
  pid: number,
  { onProgress }: BuildOptions,
  ended: AbortSignal,
): Promise<void> {
  if (onProgress === undefined) return
  while (!ended.aborted) {
    // progress is for people to look at: without it the work goes on
    const progress = await repo.readProgress(db, pid).catch(() => undefined)
    if (progress !== undefined && !ended.aborted) onProgress(progress.phase, progress.share)
    await delay(LOOK_EVERY_MS, undefined, { signal: ended }).catch(() => {})
  }
}
