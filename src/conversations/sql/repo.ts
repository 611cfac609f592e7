import { type RawBuilder, sql } from 'kysely'
import { encodeJson, encodeJsonb } from '../../core/json.ts'
import { type Db, t } from '../../db/schema.ts'
import type { ConversationThread } from '../mapping.ts'
import type { Turn } from '../store.ts'

export type ThreadRow = { id: string; title: string | null; meta: Record<string, unknown>; createdAt: Date }
export type SummaryRow = ThreadRow & { messageCount: number }
export type MessageRow = { seq: number; role: string; content: unknown; meta: Record<string, unknown> }

const columns = sql`th.id, th.title, th.meta, th.created_at as "createdAt"`
const isCouncil = (userId: string) => sql`th.user_id = ${userId} and th.kind = 'council'`

/** Undefined when the user has no such thread, or one of another kind. */
export async function findThread(db: Db, userId: string, id: string): Promise<ThreadRow | undefined> {
  const { rows } = await sql<ThreadRow>`
    /* conversations.get */
    select ${columns} from ${t.threads} th where ${isCouncil(userId)} and th.id = ${id}::uuid`.execute(db)
  return rows[0]
}

/** All messages of a thread, by seq. */
export async function listMessages(db: Db, userId: string, id: string): Promise<MessageRow[]> {
  const { rows } = await sql<MessageRow>`
    /* conversations.messages */
    select m.seq, m.role, m.content, m.meta from ${t.messages} m
     where m.user_id = ${userId} and m.thread_id = ${id}::uuid order by m.seq`.execute(db)
  return rows
}

const summary = sql`
  ${columns}, (select count(*) from ${t.messages} m
                where m.user_id = th.user_id and m.thread_id = th.id) as "messageCount"`

/** Newest first, archived ones left out. @param after the thread before the first one, and its time should it be gone */
export async function listThreads(
  db: Db,
  userId: string,
  { limit, after }: { limit?: number; after?: { id: string; createdAt: Date } },
): Promise<SummaryRow[]> {
  const behind =
    after === undefined
      ? sql``
      : sql`and (th.created_at, th.id) < (
              select coalesce(max(a.created_at), ${after.createdAt}::timestamptz), ${after.id}::uuid
                from ${t.threads} a where a.user_id = ${userId} and a.id = ${after.id}::uuid)`
  const { rows } = await sql<SummaryRow>`
    /* conversations.list */
    select ${summary} from ${t.threads} th
     where ${isCouncil(userId)} and th.archived_at is null ${behind}
     order by th.created_at desc, th.id desc limit ${limit ?? null}::int`.execute(db)
  return rows
}

export type HitRow = SummaryRow & { matches: (MessageRow & { position: number })[] }

/** Does a text hold another, in any case? */
const holds = (text: RawBuilder<unknown>, q: string) => sql`strpos(lower(${text}), lower(${q})) > 0`
const said = sql`coalesce(m.text, m.content #>> '{}')`

/** Conversations that say `q` in their title or a message, newest first. */
export async function searchThreads(db: Db, userId: string, q: string, limit: number): Promise<SummaryRow[]> {
  const { rows } = await sql<SummaryRow>`
    /* conversations.search */
    select ${summary} from ${t.threads} th
     where ${isCouncil(userId)} and th.archived_at is null
       and (${holds(sql`th.title`, q)} or exists (
         select from ${t.messages} m
          where m.user_id = th.user_id and m.thread_id = th.id and ${holds(said, q)}))
     order by th.created_at desc, th.id desc limit ${limit}::int`.execute(db)
  return rows
}

/** Of each thread the first messages that say `q`, with their place from 0. */
export async function searchMessages(
  db: Db,
  userId: string,
  ids: string[],
  q: string,
  perThread: number,
): Promise<(MessageRow & { threadId: string; position: number })[]> {
  const { rows } = await sql<MessageRow & { threadId: string; position: number }>`
    /* conversations.matches */
    select i.id as "threadId", m.* from unnest(${ids}::uuid[]) as i (id), lateral (
      select m.seq, m.role, m.content, m.meta,
             (select count(*) from ${t.messages} b
               where b.user_id = m.user_id and b.thread_id = m.thread_id and b.seq < m.seq) as position
        from ${t.messages} m
       where m.user_id = ${userId} and m.thread_id = i.id and ${holds(said, q)}
       order by m.seq limit ${perThread}::int
    ) m`.execute(db)
  return rows
}

/** False when the user has no such conversation. */
export async function setTitle(db: Db, userId: string, id: string, title: string): Promise<boolean> {
  const { numAffectedRows } = await sql`
    /* conversations.title */
    update ${t.threads} th set title = ${title}, updated_at = greatest(updated_at, now())
     where ${isCouncil(userId)} and th.id = ${id}::uuid`.execute(db)
  return numAffectedRows === 1n
}

/**
 * Makes the thread of a conversation or brings it to what this says, and locks it. What is in `meta` beside `council` stays.
 * False when there is a thread of another kind.
 */
export async function upsertThread(tx: Db, userId: string, thread: ConversationThread): Promise<boolean> {
  const { numAffectedRows } = await sql`
    /* conversations.upsert */
    insert into ${t.threads} as th (user_id, id, title, kind, meta, created_at, updated_at)
    values (${userId}, ${thread.id}::uuid, ${thread.title}, 'council', ${encodeJsonb(thread.meta)}::jsonb,
            coalesce(${thread.createdAt ?? null}::timestamptz, now()), now())
    on conflict (user_id, id) do update
       set title = excluded.title, meta = (th.meta - 'council') || excluded.meta,
           created_at = case when ${thread.createdAt === undefined}::boolean then th.created_at else excluded.created_at end,
           updated_at = greatest(th.updated_at, now())
     where th.kind = 'council'`.execute(tx)
  return numAffectedRows === 1n
}

/** Removes the messages behind a seq. Under the lock of the thread. */
export async function deleteBehind(tx: Db, userId: string, id: string, seq: number): Promise<void> {
  await sql`
    /* conversations.cut */
    delete from ${t.messages} where user_id = ${userId} and thread_id = ${id}::uuid and seq > ${seq}::bigint`.execute(
    tx,
  )
}

/** Keeps others from appending and deleting until the transaction ends. False when there is no such conversation. */
export async function lockThread(tx: Db, userId: string, id: string): Promise<boolean> {
  const { rows } = await sql`
    /* conversations.lock */
    select 1 from ${t.threads} th where ${isCouncil(userId)} and th.id = ${id}::uuid for no key update`.execute(
    tx,
  )
  return rows.length > 0
}

export type Lease = { holder: string; leaseS: number }

const until = (leaseS: number) => sql`clock_timestamp() + make_interval(secs => ${leaseS}::float8)`

/** Takes the right to answer. @returns what is stored of the answer, null for nothing; undefined when it is another's, or there is no such conversation */
export async function takeTurn(
  db: Db,
  userId: string,
  id: string,
  { holder, leaseS }: Lease,
): Promise<{ state: Turn | null } | undefined> {
  const { rows } = await sql<{ state: Turn | null }>`
    /* conversations.take_turn */
    insert into ${t.councilTurns} as turn (user_id, thread_id, holder, lease_until)
    select th.user_id, th.id, ${holder}::uuid, ${until(leaseS)}
      from ${t.threads} th where ${isCouncil(userId)} and th.id = ${id}::uuid
       -- waits for who deletes it, and then finds none
       for key share of th
    on conflict (user_id, thread_id) do update
       set holder = excluded.holder, lease_until = excluded.lease_until, updated_at = now()
     where turn.lease_until <= clock_timestamp() or turn.holder = excluded.holder
    returning turn.state`.execute(db)
  return rows[0]
}

/** The newest messages of a thread, newest first. */
export async function lastMessages(db: Db, userId: string, id: string, limit: number): Promise<MessageRow[]> {
  const { rows } = await sql<MessageRow>`
    /* conversations.last_messages */
    select m.seq, m.role, m.content, m.meta from ${t.messages} m
     where m.user_id = ${userId} and m.thread_id = ${id}::uuid order by m.seq desc limit ${limit}::int`.execute(
    db,
  )
  return rows
}

/** False when the turn is not the holder's. */
export async function saveTurn(
  db: Db,
  userId: string,
  id: string,
  { holder, leaseS }: Lease,
  state: Turn,
): Promise<boolean> {
  const { numAffectedRows } = await sql`
    /* conversations.save_turn */
    update ${t.councilTurns}
       set state = ${encodeJson(state)}::json, lease_until = ${until(leaseS)}, updated_at = now()
     where user_id = ${userId} and thread_id = ${id}::uuid and holder = ${holder}::uuid`.execute(db)
  return numAffectedRows === 1n
}

/** False when the turn is not the holder's. */
export async function deleteTurn(tx: Db, userId: string, id: string, holder: string): Promise<boolean> {
  const { numAffectedRows } = await sql`
    /* conversations.end_turn */
    delete from ${t.councilTurns}
     where user_id = ${userId} and thread_id = ${id}::uuid and holder = ${holder}::uuid`.execute(tx)
  return numAffectedRows === 1n
}

/** Ends the lease; what is stored stays. */
export async function releaseTurn(db: Db, userId: string, id: string, holder: string): Promise<void> {
  await sql`
    /* conversations.release_turn */
    update ${t.councilTurns} set lease_until = clock_timestamp()
     where user_id = ${userId} and thread_id = ${id}::uuid and holder = ${holder}::uuid`.execute(db)
}
