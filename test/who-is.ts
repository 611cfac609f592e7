import { randomUUID } from 'node:crypto'
import { type Kysely, sql } from 'kysely'
import type { Schema } from '../src/db/schema.ts'

export type Who = { role: string; login: string; user: string | null }

/** Under which role, and for which user, a handle's statements run. */
export async function whoIs(db: Kysely<Schema>): Promise<Who> {
  const { rows } = await sql<Who>`
    select current_user::text as role, session_user::text as login,
           nullif(current_setting('threadbase.user_id', true), '') as user`.execute(db)
  return rows[0] as Who
}

/** A query that forgot its user. */
export const ownersOf = async (db: Kysely<Schema>, table: 'threads' | 'messages' = 'threads') =>
  (
    await sql<{ user_id: string }>`select distinct user_id from ${sql.table(table)} order by 1`.execute(db)
  ).rows.map(({ user_id }) => user_id)

export const insertFor = (db: Kysely<Schema>, userId: string) =>
  sql`insert into ${sql.table('threads')} (user_id, id) values (${userId}, ${randomUUID()}::uuid)`.execute(db)
