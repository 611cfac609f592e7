import type { Logger } from '../../../core/log.ts'
import type { Database } from '../../../db/database.ts'
import { type Extension, readyExtension, reasonOf } from '../../../db/vector-extension.ts'
import * as repo from './repo.ts'

export type { Space } from './repo.ts'
export { nearest } from './repo.ts'

const EXACT_UP_TO = 2_000

/** Whether the index gave a search fewer than there are; `many` is how many vectors there were at least. */
export function mayHaveMissed(
  { limit, offset }: { limit: number; offset: number },
  found: number,
  many: number | null,
  exactUpTo: number,
): boolean {
  return many !== null && many > exactUpTo && found < limit && offset + found < many
}

/**
 * Makes ready what vectors of this length need: the extension `vector`, and an index on PostgreSQL. Where either is
 * not to be had, the log says so, and vectors are compared one by one.
 */
export async function prepareSpace(
  database: Pick<Database, 'db' | 'engine' | 'schema'>,
  { dims, exactUpTo }: { dims: number; exactUpTo: number | undefined },
  log: Logger,
): Promise<repo.Space> {
  const wanted = exactUpTo ?? (database.engine === 'postgres' ? EXACT_UP_TO : Number.POSITIVE_INFINITY)
  const extension = await readyExtension(database, 'vectors are compared one by one', log)
  if (extension === undefined || !Number.isFinite(wanted))
    return { dims, extension, exactUpTo: Number.POSITIVE_INFINITY }
  const indexed = await readyIndex(database, dims, extension, log)
  return { dims, extension, exactUpTo: indexed ? wanted : Number.POSITIVE_INFINITY }
}

async function readyIndex(
  { db, schema }: Pick<Database, 'db' | 'schema'>,
  dims: number,
  extension: Extension,
  log: Logger,
): Promise<boolean> {
  if (await repo.hasIndex(db, schema, dims)) return true
  if (!repo.canHaveIndex(dims, extension)) {
    log.warn(
      { dims, version: extension.version },
      'vectors of this length can have no index: they are compared one by one',
    )
    return false
  }
  try {
    await db.transaction().execute((tx) => repo.createIndex(tx, schema, dims, extension))
    return true
  } catch (error) {
    const sql = repo.indexStatement(schema, dims, extension)
    log.warn(
      { reason: reasonOf(error), sql },
      'the index of vectors cannot be made: they are compared one by one',
    )
    return false
  }
}
