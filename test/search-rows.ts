import type { Kysely } from 'kysely'
import type { Schema } from '../src/db/schema.ts'

/** A row in each table that stands beside search, of a session of the user. */
export async function storeBesideSearch(db: Kysely<Schema>, userId: string, session: string): Promise<void> {
  const claim = { user_id: userId, id: session, holder: session, until: new Date() }
  await db.insertInto('embedding_claims').values(claim).execute()
  const lists = { vulnerabilities: '[]', chain_links: '[]', solutions: '[]' }
  const key = { user_id: userId, session_id: session }
  await db
    .insertInto('chain_analysis_results')
    .values({ ...key, ...lists, text: 'x' })
    .execute()
  const replaced = { version: 1, result: '{}', written_at: new Date() }
  await db
    .insertInto('chain_analysis_versions')
    .values({ ...key, ...replaced })
    .execute()
}
