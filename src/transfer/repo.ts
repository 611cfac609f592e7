import { sql } from 'kysely'
import { type Db, t } from '../db/schema.ts'

/** `place` is where the thread stood in the file it was imported from, as JSON text; `null` for any other. */
export type AgeKey = { createdAt: Date; place: string; id: string }

const place = sql`coalesce(meta #> '{import,n}', 'null'::jsonb)`

/**
 * Ids of the user's threads, archived ones too, oldest first and those of one moment in the order of the file they
 * came in: `limit` at most, behind `after`.
 */
export async function listThreadKeys(
  db: Db,
  userId: string,
  limit: number,
  after: AgeKey | undefined,
): Promise<AgeKey[]> {
  const start = after ?? { createdAt: '-infinity', place: 'null', id: '00000000-0000-0000-0000-000000000000' }
  const { rows } = await sql<AgeKey>`
    /* transfer.thread_keys */
    select created_at as "createdAt", ${place}::text as place, id from ${t.threads}
     where user_id = ${userId}
       and (created_at, ${place}, id) > (${start.createdAt}::timestamptz, ${start.place}::jsonb, ${start.id}::uuid)
     order by created_at, ${place}, id limit ${limit}`.execute(db)
  return rows
}
