import { type RawBuilder, sql } from 'kysely'
import { type Db, t } from '../../db/schema.ts'
import { SESSION_TYPE, type Session, type SessionQuery } from '../schema.ts'

type SessionRow = {
  user_id: string
  id: string
  title: string | null
  meta: Record<string, unknown>
  last_seq: number
  created_at: Date
  ended_at: Date | null
  archived_at: Date | null
  version: number | null
}

const toSession = (row: SessionRow): Session => ({
  id: row.id,
  userId: row.user_id,
  type: SESSION_TYPE,
  title: row.title,
  meta: row.meta,
  lastSeq: row.last_seq,
  startedAt: row.created_at,
  endedAt: row.ended_at,
  archivedAt: row.archived_at,
  analysisVersion: row.version,
})

// the kind is written out: the index of sessions is for this one
const ofUser = (userId: string) => sql`
  select s.user_id, s.id, s.title, s.meta, s.last_seq, s.created_at, s.ended_at, s.archived_at, r.version
    from ${t.threads} s
    left join ${t.chainAnalysisResults} r on r.user_id = s.user_id and r.session_id = s.id
   where s.user_id = ${userId} and s.kind = 'chain_analysis'`

/** Undefined when the user has no such thread, or it is of another kind. */
export async function findSession(db: Db, userId: string, id: string): Promise<Session | undefined> {
  const { rows } = await sql<SessionRow>`
    /* sessions.get */
    ${ofUser(userId)} and s.id = ${id}::uuid`.execute(db)
  return rows[0] && toSession(rows[0])
}

export type SessionKey = { startedAt: Date; id: string }

/** Newest start first, ids descending among equals; `limit` rows at most, behind `after`. */
export async function listSessions(
  db: Db,
  userId: string,
  query: Pick<SessionQuery, 'ended' | 'includeArchived'> & { limit: number; after: SessionKey | undefined },
): Promise<Session[]> {
  const { ended, includeArchived, after, limit } = query
  const filters: RawBuilder<unknown>[] = []
  if (includeArchived !== true) filters.push(sql`and s.archived_at is null`)
  if (ended !== undefined) filters.push(ended ? sql`and s.ended_at is not null` : sql`and s.ended_at is null`)
  if (after !== undefined)
    filters.push(sql`and (s.created_at, s.id) < (${after.startedAt}::timestamptz, ${after.id}::uuid)`)
  const { rows } = await sql<SessionRow>`
    /* sessions.list */
    ${ofUser(userId)} ${sql.join(filters, sql` `)}
     order by s.created_at desc, s.id desc limit ${limit}`.execute(db)
  return rows.map(toSession)
}
