import { sql } from 'kysely'
import { run } from '../../db/migrate.ts'
import type { Db } from '../../db/schema.ts'
import type { Trigrams } from '../text/repo.ts'

/** The extension pg_trgm: where it is, and whether it is to be had. */
export async function findTrigrams(db: Db): Promise<{ created: Trigrams | undefined; available: boolean }> {
  const { rows } = await sql<{ schema: string | null }>`
    /* search.trigrams */
    select n.nspname::text as schema from pg_available_extensions a
      left join pg_extension e on e.extname = a.name
      left join pg_namespace n on n.oid = e.extnamespace
     where a.name = 'pg_trgm'`.execute(db)
  const schema = rows[0]?.schema ?? null
  return { created: schema === null ? undefined : { schema }, available: rows.length > 0 }
}

/** One process at a time: `if not exists` alone fails when two do so together. */
export async function createTrigrams(tx: Db): Promise<void> {
  await sql`/* migrate.trigrams */ select pg_advisory_xact_lock(hashtext('threadbase extension pg_trgm'))`.execute(
    tx,
  )
  await run(tx, 'create extension if not exists pg_trgm')
}
