import { sql } from 'kysely'
import type { Logger } from '../core/log.ts'
import type { Database } from './database.ts'
import { isSqlState } from './errors.ts'
import { run } from './migrate.ts'
import type { Db } from './schema.ts'

/** The extension `vector` (pgvector) in this database, and the schema that its types are in. */
export type Extension = { schema: string; version: string }

/** From when on an index goes on looking when a filter took away what it found. */
const ITERATES_SINCE = '0.8'

export const isAtLeast = (version: string, least: string): boolean =>
  version.localeCompare(least, 'en', { numeric: true }) >= 0

/** Whether a search in an index finds all that a filter leaves. */
export const iterates = ({ version }: Extension): boolean => isAtLeast(version, ITERATES_SINCE)

/** The extension, whether it is created or only to be had. */
export async function findExtension(db: Db): Promise<{ created: Extension | undefined; available: boolean }> {
  const { rows } = await sql<{ schema: string | null; version: string | null }>`
    /* vectors.extension */
    select n.nspname::text as schema, e.extversion as version
      from pg_available_extensions a
      left join pg_extension e on e.extname = a.name
      left join pg_namespace n on n.oid = e.extnamespace
     where a.name = 'vector'`.execute(db)
  const [found] = rows
  if (found === undefined) return { created: undefined, available: false }
  const { schema, version } = found
  return { created: schema === null || version === null ? undefined : { schema, version }, available: true }
}

/**
 * The extension, created where it is only to be had and the role may. Where it is not, the log says what an
 * administrator can do.
 * @param without what happens then, for the log
 */
export async function readyExtension(
  { db }: Pick<Database, 'db'>,
  without: string,
  log: Logger,
): Promise<Extension | undefined> {
  const { created, available } = await findExtension(db)
  if (created !== undefined) return created
  if (!available) {
    log.warn({}, `the database has no extension vector (pgvector): ${without}`)
    return undefined
  }
  try {
    await db.transaction().execute(async (tx) => {
      // `if not exists` alone fails when two processes do so together
      await lockVectors(tx, 'extension vector')
      await run(tx, 'create extension if not exists vector')
    })
  } catch (error) {
    const facts = { reason: reasonOf(error), sql: 'create extension vector' }
    log.warn(facts, `the extension vector cannot be created: ${without}`)
  }
  return (await findExtension(db)).created
}

/** One process at a time, of all that use the database. */
export const lockVectors = (tx: Db, what: string) =>
  sql`/* migrate.vectors */ select pg_advisory_xact_lock(hashtext(${`threadbase store ${what}`}))`.execute(tx)

export const reasonOf = (error: unknown): string => (error instanceof Error ? error.message : String(error))

// a column, type, operator or schema that is not there (any more)
const GONE = ['42703', '42704', '42883', '3F000']

/** Whether a statement failed since the extension, or a column of its type, is gone. */
export const isVectorLoss = (error: unknown): boolean => isSqlState(error, ...GONE)

/** Whether messages have their column of vectors now. */
export async function hasEmbeddings(db: Db, schema: string): Promise<boolean> {
  const { rows } = await sql`
    /* vectors.column */
    select from pg_attribute a join pg_class c on c.oid = a.attrelid join pg_namespace n on n.oid = c.relnamespace
     where n.nspname = ${schema} and c.relname = 'messages' and a.attname = 'embedding' and not a.attisdropped`.execute(
    db,
  )
  return rows.length > 0
}
