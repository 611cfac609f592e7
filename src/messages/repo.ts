import { type RawBuilder, sql } from 'kysely'
import { intArray, textArray, uuidArray } from '../db/arrays.ts'
import type { Database } from '../db/database.ts'
import { mergePatch } from '../db/merge-patch.ts'
import { type Db, t } from '../db/schema.ts'
import type { UserRows } from './append-by-user.ts'
import type { Message, Role } from './schema.ts'

/** A message ready to be stored: JSON as text, digest in hex. */
export type AppendRow = {
  /** The caller's request within the batch. */
  call: number
  userId: string
  threadId: string
  id: string
  messageId: string | null
  parentMode: 'auto' | 'root' | 'batch' | 'stored'
  /** For `batch`: the parent's place in the batch, from 1. */
  parentN: number | null
  parentId: string | null
  parentKey: string | null
  role: Role
  content: string
  text: string | null
  toolName: string | null
  toolInput: string | null
  toolOutput: string | null
  meta: string | null
  digest: string
  createdAt: string | null
  /** When the message says its thread was updated; null for now. */
  updatedAt: string | null
}

export type AppendOutcome = {
  status: 'new' | 'known' | 'no_thread' | 'no_parent' | 'conflict' | 'refused'
  id: string
  seq: number
  parent_seq: number | null
  parent_id: string | null
  /** The stored one of a known message, else null. */
  meta: Record<string, unknown> | null
  created_at: Date
}

type TextKey = Exclude<keyof AppendRow, 'call' | 'parentN' | 'createdAt' | 'updatedAt'>

/** Appends the messages of one or many calls in one statement (see migrations/0001_threads.sql); one outcome a row, in order. */
export async function appendRows(db: Db, rows: AppendRow[]): Promise<AppendOutcome[]> {
  const { rows: outcomes } = await appendQuery(rows).execute(db)
  return withParentIds(rows, outcomes)
}

/** As {@link appendRows} for each of several users, whose rows are stored together or not at all. */
export async function appendForUsers(
  { db, forUsers }: Pick<Database, 'db' | 'forUsers'>,
  parts: UserRows[],
): Promise<AppendOutcome[][]> {
  const calls = parts.map(({ userId, rows }) => ({ userId, query: appendQuery(rows).compile(db) }))
  const results = await forUsers(calls)
  return parts.map(({ rows }, i) => withParentIds(rows, results[i]?.rows ?? []))
}

function appendQuery(rows: AppendRow[]): RawBuilder<AppendOutcome> {
  const column = <K extends keyof AppendRow>(key: K): AppendRow[K][] => rows.map((row) => row[key])
  const texts = (key: TextKey) => textArray(column(key))
  const uuids = (key: 'threadId' | 'id' | 'parentId') => uuidArray(column(key))
  const ints = (key: 'call' | 'parentN') => intArray(column(key))
  return sql<AppendOutcome>`
    /* messages.append */
    select status, id, seq, parent_seq, parent_id, meta, created_at from ${t.appendMessages}(
      ${ints('call')}::int[], ${texts('userId')}::text[], ${uuids('threadId')}::uuid[], ${uuids('id')}::uuid[],
      ${texts('messageId')}::text[], ${texts('parentMode')}::text[], ${ints('parentN')}::int[],
      ${uuids('parentId')}::uuid[], ${texts('parentKey')}::text[], ${texts('role')}::text[],
      ${texts('content')}::text[], ${texts('text')}::text[], ${texts('toolName')}::text[],
      ${texts('toolInput')}::text[], ${texts('toolOutput')}::text[], ${texts('meta')}::text[],
      ${texts('digest')}::text[], ${column('createdAt')}::timestamptz[],
      ${column('updatedAt')}::timestamptz[])`
}

/** The statement cannot see its own rows: it names a parent that came in the same batch by its seq only. */
function withParentIds(rows: AppendRow[], outcomes: AppendOutcome[]): AppendOutcome[] {
  const keyOf = (row: AppendRow | undefined, seq: number) => `${row?.threadId} ${seq} ${row?.userId}`
  const ids = new Map(outcomes.map(({ seq, id }, i) => [keyOf(rows[i], seq), id]))
  return outcomes.map((outcome, i) => {
    const { parent_id, parent_seq } = outcome
    if (parent_id !== null || parent_seq === null) return outcome
    return { ...outcome, parent_id: ids.get(keyOf(rows[i], parent_seq)) ?? null }
  })
}

export type StoredDigest = {
  threadId: string
  messageId: string
  /** Hex, as `digestMessage` makes it. */
  digest: string
  meta: Record<string, unknown>
}

/** The messages of some threads that have a message id, by thread and seq. */
export async function listDigests(db: Db, userId: string, threadIds: string[]): Promise<StoredDigest[]> {
  // a walk along the primary key for each thread, also while the table has no statistics
  const { rows } = await sql<StoredDigest>`
    /* messages.digests */
    select m.* from unnest(${threadIds}::uuid[]) as i (id), lateral (
      select thread_id as "threadId", message_id as "messageId", encode(digest, 'hex') as digest, meta
        from ${t.messages}
       where user_id = ${userId} and thread_id = i.id and message_id is not null
       order by seq
    ) m`.execute(db)
  return rows
}

type MessageRow = {
  id: string
  thread_id: string
  seq: number
  message_id: string | null
  parent_id: string | null
  role: string
  content: unknown
  text: string | null
  tool_name: string | null
  tool_input: unknown
  tool_output: unknown
  meta: Record<string, unknown>
  created_at: Date
}

function toMessage(row: MessageRow): Message {
  return {
    id: row.id,
    threadId: row.thread_id,
    seq: row.seq,
    messageId: row.message_id,
    parentId: row.parent_id,
    role: row.role as Role,
    content: row.content,
    text: row.text ?? String(row.content),
    toolName: row.tool_name,
    toolInput: row.tool_input,
    toolOutput: row.tool_output,
    meta: row.meta,
    createdAt: row.created_at,
  }
}

// A subquery, not a join: without statistics (always, on the embedded store) a join is planned as a walk along the
// whole thread for each row. A range and an order, not equality: a plan that was made while the table was small is kept
// for the life of the connection, and would look through all messages of the user in the index on (user_id, id).
const columns = sql`
  m.id, m.thread_id, m.seq, m.message_id,
  (select p.id from ${t.messages} p
    where p.user_id = m.user_id and p.thread_id = m.thread_id and p.seq >= m.parent_seq and p.seq <= m.parent_seq
    order by p.seq limit 1) as parent_id,
  m.role, m.content, m.text, m.tool_name, m.tool_input, m.tool_output, m.meta, m.created_at`

export type MessageRange = { before?: number; after?: number; order: 'asc' | 'desc'; limit: number }

/** A page of messages; `more` says that it ended at the limit or at the size of a page, and others follow. `bytes` of their JSON. */
export type MessageRows = { messages: Message[]; more: boolean; bytes: number }

/** The bytes of JSON that a page holds at most, unless its first message alone has more. */
export const MAX_PAGE_BYTES = 16 * 1024 * 1024

type PageRow = MessageRow & { more: boolean; bytes: number }

/** The first `limit` of some rows by seq, and no more than a page may hold. `rows` gives one more, if there is one. */
function cutPage(rows: RawBuilder<unknown>, direction: RawBuilder<unknown>, limit: number) {
  return sql`
    select ${columns}, m.more, m.bytes from (
      select m.*, row_number() over w as n, lead(m.seq) over w is not null as more,
             sum(octet_length(m.content::text) + coalesce(octet_length(m.tool_input::text), 0)
                 + coalesce(octet_length(m.tool_output::text), 0) + octet_length(m.meta::text)) over w as bytes
        from (${rows}) m
      window w as (order by m.seq ${direction} rows unbounded preceding)
    ) m
     where m.n = 1 or (m.n <= ${limit} and m.bytes <= ${MAX_PAGE_BYTES}::bigint)`
}

function toRows(rows: PageRow[]): MessageRows {
  return { messages: rows.map(toMessage), more: rows.at(-1)?.more ?? false, bytes: rows.at(-1)?.bytes ?? 0 }
}

/** The thread's messages by seq, `limit` at most. Undefined when the user has no such thread. */
export async function listMessages(
  db: Db,
  userId: string,
  threadId: string,
  { before, after, order, limit }: MessageRange,
): Promise<MessageRows | undefined> {
  const direction = order === 'asc' ? sql`asc` : sql`desc`
  // an absent bound is one that nothing exceeds, so that one plan serves all
  const rows = sql`
    select m.* from ${t.messages} m
     where m.user_id = th.user_id and m.thread_id = th.id
       and m.seq < ${before ?? Number.MAX_SAFE_INTEGER}::bigint and m.seq > ${after ?? 0}::bigint
     order by m.seq ${direction} limit ${limit + 1}`
  const found = await sql<PageRow & { seq: number | null }>`
    /* messages.list */
    select page.* from ${t.threads} th
      left join lateral (${cutPage(rows, direction, limit)}) page on true
     where th.user_id = ${userId} and th.id = ${threadId}::uuid
     order by page.seq ${direction}`.execute(db)
  if (found.rows.length === 0) return undefined
  return toRows(found.rows.filter(({ seq }) => seq !== null))
}

/** The messages from `first` to `last` by seq, both included. */
export type Stretch = { first: number; last: number }

/** The messages of some stretches of a thread, `limit` at most. The stretches come in the order of the page. */
export async function listStretches(
  db: Db,
  userId: string,
  threadId: string,
  stretches: Stretch[],
  { order, limit }: Pick<MessageRange, 'order' | 'limit'>,
): Promise<MessageRows> {
  const direction = order === 'asc' ? sql`asc` : sql`desc`
  const [firsts, lasts] = [stretches.map(({ first }) => first), stretches.map(({ last }) => last)]
  // the limit inside makes each stretch a walk along the primary key, also while the table has no statistics
  const rows = sql`
    select m.* from unnest(${firsts}::bigint[], ${lasts}::bigint[]) as s (first, last), lateral (
      select m.* from ${t.messages} m
       where m.user_id = ${userId} and m.thread_id = ${threadId}::uuid and m.seq >= s.first and m.seq <= s.last
       order by m.seq ${direction} limit ${limit + 1}
    ) m
     order by m.seq ${direction} limit ${limit + 1}`
  const found = await sql<PageRow>`
    /* messages.stretches */
    ${cutPage(rows, direction, limit)} order by m.seq ${direction}`.execute(db)
  return toRows(found.rows)
}

/** A message that does not follow the seq before its own: where a branch begins, a root, or what follows a deleted one. */
export type Turn = { seq: number; parentSeq: number | null }

/** The turns among the messages behind `after` up to `last`, newest first; and whether the last is there. */
export async function listTurns(
  db: Db,
  userId: string,
  threadId: string,
  { after, last }: { after: number; last: number },
): Promise<{ turns: Turn[]; hasLast: boolean }> {
  const { rows } = await sql<Turn>`
    /* messages.turns */
    select seq, parent_seq as "parentSeq" from ${t.messages}
     where user_id = ${userId} and thread_id = ${threadId}::uuid and seq > ${after}::bigint and seq <= ${last}::bigint
       and (parent_seq is distinct from seq - 1 or seq = ${last}::bigint)
     order by seq desc`.execute(db)
  const turns = rows.filter(({ seq, parentSeq }) => parentSeq !== seq - 1)
  return { turns, hasLast: rows[0]?.seq === last }
}

/** The seq of a message. Undefined when the thread has no such message. */
export async function findSeq(
  db: Db,
  userId: string,
  threadId: string,
  id: string,
): Promise<number | undefined> {
  const { rows } = await sql<{ seq: number }>`
    /* messages.seq */
    select m.seq from ${t.messages} m where ${byId('m', userId, threadId, id)}`.execute(db)
  return rows[0]?.seq
}

/**
 * The message with this id, if it is of this thread. Written so that only the index on (user_id, id) can serve: to a
 * planner without statistics, walking the whole thread along the primary key looks just as good.
 */
function byId(table: string, userId: string, threadId: string, id: string) {
  const column = (name: string) => sql.ref(table === '' ? name : `${table}.${name}`)
  return sql`${column('user_id')} = ${userId} and ${column('id')} = ${id}::uuid
         and ${column('thread_id')} is not distinct from ${threadId}::uuid`
}

export async function findMessage(
  db: Db,
  userId: string,
  threadId: string,
  id: string,
): Promise<Message | undefined> {
  const { rows } = await sql<MessageRow>`
    /* messages.get */
    select ${columns} from ${t.messages} m
     where ${byId('m', userId, threadId, id)}`.execute(db)
  return rows[0] && toMessage(rows[0])
}

/** Undefined when there is no such message. */
export async function patchMeta(
  db: Db,
  userId: string,
  threadId: string,
  id: string,
  meta: Record<string, unknown>,
): Promise<Message | undefined> {
  const { rows } = await sql<MessageRow>`
    /* messages.patch */
    with m as (
      update ${t.messages} set meta = ${mergePatch(sql`meta`, meta)}
       where ${byId('', userId, threadId, id)} returning *)
    select ${columns} from m`.execute(db)
  return rows[0] && toMessage(rows[0])
}

/** Keeps others from appending to the thread until the transaction ends. False when there is no such thread. */
export async function lockThread(tx: Db, userId: string, threadId: string): Promise<boolean> {
  const { rows } = await sql`
    /* messages.lock */
    select 1 from ${t.threads} where user_id = ${userId} and id = ${threadId}::uuid for no key update`.execute(
    tx,
  )
  return rows.length > 0
}

/** Removes a message; its children become its parent's. Under {@link lockThread}. False when there was none. */
export async function deleteMessage(tx: Db, userId: string, threadId: string, id: string): Promise<boolean> {
  const { rows } = await sql`
    /* messages.delete */
    with gone as (
      delete from ${t.messages}
       where ${byId('', userId, threadId, id)} returning seq, parent_seq
    ), reattached as (
      update ${t.messages} m set parent_seq = (select parent_seq from gone)
       where m.user_id = ${userId} and m.thread_id = ${threadId}::uuid
         and m.seq > (select seq from gone) and m.parent_seq = (select seq from gone)
    )
    select 1 from gone`.execute(tx)
  return rows.length > 0
}

/** @returns how many there were */
export async function deleteMessages(tx: Db, userId: string, threadId: string): Promise<number> {
  const { numAffectedRows } = await sql`
    /* messages.clear */
    delete from ${t.messages} m where m.user_id = ${userId} and m.thread_id = ${threadId}::uuid`.execute(tx)
  return Number(numAffectedRows ?? 0n)
}
