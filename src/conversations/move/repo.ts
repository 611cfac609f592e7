import { type RawBuilder, sql } from 'kysely'
import { encodeJsonb } from '../../core/json.ts'
import { byteaArray, doubleArray, intArray, textArray, uuidArray } from '../../db/arrays.ts'
import { type Db, t } from '../../db/schema.ts'
import type { PreparedMessage } from '../../messages/service.ts'
import type { ThreadMeta } from './document.ts'

export type ThreadRow = {
  id: string
  title: string
  meta: ThreadMeta
  lastSeq: number
  createdAt: Date
  updatedAt: Date
}

/** A message at its place in a thread; it follows the one before it. */
export type MessageRow = {
  threadId: string
  seq: number
  parentSeq: number | null
  row: PreparedMessage['row']
  createdAt: Date
}

const milliseconds = (dates: Date[]) => doubleArray(dates.map((date) => date.getTime()))
const toTime = (column: string) => sql`to_timestamp(${sql.ref(column)} / 1000)`

/**
 * Makes threads with their messages in one statement: all of a thread or nothing. A thread that is there already is left
 * as it is. @returns the ids of those that were made
 */
export async function insertConversations(
  db: Db,
  userId: string,
  threads: ThreadRow[],
  messages: MessageRow[],
): Promise<string[]> {
  const { rows } = await sql<{ id: string }>`
    /* conversation_move.insert */
    with made as (
      insert into ${t.threads} (user_id, id, title, kind, meta, last_seq, created_at, updated_at)
      select ${userId}::text, i.id, i.title, 'council', i.meta::jsonb, i.last_seq, ${toTime('i.created')}, ${toTime('i.updated')}
        from unnest(${uuidArray(threads.map(({ id }) => id))}::uuid[],
                    ${textArray(threads.map(({ title }) => title))}::text[],
                    ${textArray(threads.map(({ meta }) => encodeJsonb(meta)))}::text[],
                    ${intArray(threads.map(({ lastSeq }) => lastSeq))}::int[],
                    ${milliseconds(threads.map(({ createdAt }) => createdAt))}::float8[],
                    ${milliseconds(threads.map(({ updatedAt }) => updatedAt))}::float8[])
             as i (id, title, meta, last_seq, created, updated)
       -- in one order, so that two such statements cannot wait for each other
       order by i.id
      on conflict (user_id, id) do nothing
      returning id
    ), stored as (
      ${storeMessages(userId, messages, sql`where m.thread_id in (select id from made)`)}
    )
    select id from made`.execute(db)
  return rows.map(({ id }) => id)
}

/** More messages of threads that this transaction made or locked. */
export async function insertMessages(tx: Db, userId: string, messages: MessageRow[]): Promise<void> {
  await sql`/* conversation_move.messages */ ${storeMessages(userId, messages, sql``)}`.execute(tx)
}

function storeMessages(userId: string, messages: MessageRow[], where: RawBuilder<unknown>) {
  const rows = messages.map(({ row }) => row)
  return sql`
    insert into ${t.messages} (user_id, thread_id, seq, id, message_id, parent_seq, role, content, text, meta, digest,
                               created_at)
    select ${userId}::text, m.thread_id, m.seq, m.id, m.message_id, m.parent_seq, m.role, m.content::json, m.text,
           coalesce(m.meta::jsonb, '{}'), m.digest, ${toTime('m.created')}
      from unnest(${uuidArray(messages.map(({ threadId }) => threadId))}::uuid[],
                  ${intArray(messages.map(({ seq }) => seq))}::int[],
                  ${uuidArray(rows.map(({ id }) => id))}::uuid[],
                  ${textArray(rows.map(({ messageId }) => messageId))}::text[],
                  ${intArray(messages.map(({ parentSeq }) => parentSeq))}::int[],
                  ${textArray(rows.map(({ role }) => role))}::text[],
                  ${textArray(rows.map(({ content }) => content))}::text[],
                  ${textArray(rows.map(({ text }) => text))}::text[],
                  ${textArray(rows.map(({ meta }) => meta))}::text[],
                  ${byteaArray(rows.map(({ digest }) => Buffer.from(digest, 'hex')))}::bytea[],
                  ${milliseconds(messages.map(({ createdAt }) => createdAt))}::float8[])
           as m (thread_id, seq, id, message_id, parent_seq, role, content, text, meta, digest, created)
     ${where}`
}

export type StoredMessage = {
  threadId: string
  seq: number
  messageId: string | null
  /** Hex. */
  digest: string
  /** What the mapping wrote beside the content. */
  council: unknown
  createdAt: Date
}

/** What tells the messages of some threads from others, by thread and seq. */
export async function listStored(db: Db, userId: string, threadIds: string[]): Promise<StoredMessage[]> {
  // a walk along the primary key for each thread, also while the table has no statistics
  const { rows } = await sql<StoredMessage>`
    /* conversation_move.stored */
    select m.* from unnest(${uuidArray(threadIds)}::uuid[]) as i (id), lateral (
      select thread_id as "threadId", seq, message_id as "messageId", encode(digest, 'hex') as digest,
             meta -> 'council' as council, created_at as "createdAt"
        from ${t.messages}
       where user_id = ${userId} and thread_id = i.id
       order by seq
    ) m`.execute(db)
  return rows
}

export type Growth = {
  id: string
  /** What it was when it was compared: both tell of a change since. */
  lastSeq: number
  updatedAt: Date
  added: number
  /** Of the newest message that is added; null: stays. */
  newUpdatedAt: Date | null
  /** Null: stay. */
  head: { title: string; meta: Record<string, unknown>; createdAt: Date | null } | null
}

/** Locks a thread and writes what it will be. False when it changed since it was compared, or is gone. */
export async function growThread(tx: Db, userId: string, growth: Growth): Promise<boolean> {
  const { id, head, lastSeq, updatedAt, added, newUpdatedAt } = growth
  const { numAffectedRows } = await sql`
    /* conversation_move.grow */
    update ${t.threads}
       set last_seq = last_seq + ${added}::int,
           title = coalesce(${head?.title ?? null}::text, title),
           meta = coalesce(${head === null ? null : encodeJsonb(head.meta)}::text::jsonb, meta),
           created_at = coalesce(${head?.createdAt?.toISOString() ?? null}::timestamptz, created_at),
           updated_at = greatest(updated_at, ${newUpdatedAt?.toISOString() ?? null}::timestamptz)
     where user_id = ${userId} and id = ${id}::uuid and last_seq = ${lastSeq}::bigint
       and updated_at = ${updatedAt.toISOString()}::timestamptz`.execute(tx)
  return numAffectedRows === 1n
}

/** The next user who has council conversations, by id; undefined behind the last one. */
export async function findNextUser(db: Db, after: string): Promise<string | undefined> {
  const { rows } = await sql<{ userId: string }>`
    /* conversation_move.users */
    select user_id as "userId" from ${t.threads} where kind = 'council' and user_id > ${after} order by user_id limit 1`.execute(
    db,
  )
  return rows[0]?.userId
}

export type CouncilThread = {
  id: string
  title: string | null
  meta: Record<string, unknown>
  lastSeq: number
  createdAt: Date
  updatedAt: Date
}

/** Threads of council conversations behind an id, by id. */
export async function listCouncils(
  db: Db,
  userId: string,
  after: string,
  limit: number,
): Promise<CouncilThread[]> {
  const { rows } = await sql<CouncilThread>`
    /* conversation_move.threads */
    select id, title, meta, last_seq as "lastSeq", created_at as "createdAt", updated_at as "updatedAt"
      from ${t.threads}
     where user_id = ${userId} and kind = 'council' and id > ${after}::uuid
     order by id limit ${limit}`.execute(db)
  return rows
}

/** How many conversations a user has; of all users when undefined. */
export async function countCouncils(db: Db, userId: string | undefined): Promise<number> {
  const { rows } = await sql<{ count: number }>`
    /* conversation_move.count */
    select count(*)::int as count from ${t.threads}
     where kind = 'council' ${userId === undefined ? sql`` : sql`and user_id = ${userId}`}`.execute(db)
  return rows[0]?.count ?? 0
}

/** Those of the users who have counters. */
export async function findUsage(db: Db, userIds: string[]): Promise<string[]> {
  const { rows } = await sql<{ userId: string }>`
    /* conversation_move.usage */
    select user_id as "userId" from ${t.usage} where user_id = any(${textArray(userIds)}::text[])`.execute(db)
  return rows.map(({ userId }) => userId)
}
