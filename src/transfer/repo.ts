import { sql } from 'kysely'
import { type Db, t } from '../db/schema.ts'

export type AgeKey = { createdAt: Date; id: string }

/** Ids of the user's threads, oldest first, archived ones too: `limit` at most, behind `after`. */
export async function listThreadKeys(
  db: Db,
  userId: string,
  limit: number,
  after: AgeKey | undefined,
): Promise<AgeKey[]> {
  const { rows } = await sql<AgeKey>`
    /* transfer.thread_keys */
    select created_at as "createdAt", id from ${t.threads}
     where user_id = ${userId}
       and (created_at, id) > (${after?.createdAt ?? '-infinity'}::timestamptz, ${after?.id ?? NIL}::uuid)
     order by created_at, id limit ${limit}`.execute(db)
  return rows
}

const NIL = '00000000-0000-0000-0000-000000000000'

export type Turn = { threadId: string; seq: number; parentSeq: number | null }

/**
 * The messages of some threads that do not follow the message before them, by thread and seq: where a branch begins.
 * A thread without branches has none.
 */
export async function listTurns(db: Db, userId: string, threadIds: string[]): Promise<Turn[]> {
  const { rows } = await sql<Turn>`
    /* transfer.turns */
    select i.id as "threadId", m.seq, m.parent_seq as "parentSeq" from unnest(${threadIds}::uuid[]) as i (id), lateral (
      select seq, parent_seq, lag(seq) over (order by seq) as before
        from ${t.messages} where user_id = ${userId} and thread_id = i.id order by seq
    ) m
     where m.parent_seq is distinct from m.before
     order by i.id, m.seq`.execute(db)
  return rows
}
