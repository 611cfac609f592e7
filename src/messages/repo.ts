import { sql } from 'kysely'
import { intArray, textArray, uuidArray } from '../db/arrays.ts'
import { mergePatch } from '../db/merge-patch.ts'
import { type Db, t } from '../db/schema.ts'
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
  const column = <K extends keyof AppendRow>(key: K): AppendRow[K][] => rows.map((row) => row[key])
  const texts = (key: TextKey) => textArray(column(key))
  const uuids = (key: 'threadId' | 'id' | 'parentId') => uuidArray(column(key))
  const ints = (key: 'call' | 'parentN') => intArray(column(key))
  const result = await sql<AppendOutcome>`
    /* messages.append */
    select status, id, seq, parent_seq, parent_id, meta, created_at from ${t.appendMessages}(
      ${ints('call')}::int[], ${texts('userId')}::text[], ${uuids('threadId')}::uuid[], ${uuids('id')}::uuid[],
      ${texts('messageId')}::text[], ${texts('parentMode')}::text[], ${ints('parentN')}::int[],
      ${uuids('parentId')}::uuid[], ${texts('parentKey')}::text[], ${texts('role')}::text[],
      ${texts('content')}::text[], ${texts('text')}::text[], ${texts('toolName')}::text[],
      ${texts('toolInput')}::text[], ${texts('toolOutput')}::text[], ${texts('meta')}::text[],
      ${texts('digest')}::text[], ${column('createdAt')}::timestamptz[],
      ${column('updatedAt')}::timestamptz[])`.execute(db)
  // the statement cannot see its own rows: a parent that came in the same batch is named by its seq only
  const keyOf = (row: AppendRow | undefined, seq: number) => `${row?.threadId} ${seq} ${row?.userId}`
  const ids = new Map(result.rows.map(({ seq, id }, i) => [keyOf(rows[i], seq), id]))
  return result.rows.map((outcome, i) => {
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

const columns = sql`
  m.id, m.thread_id, m.seq, m.message_id, p.id as parent_id, m.role, m.content, m.text, m.tool_name, m.tool_input,
  m.tool_output, m.meta, m.created_at`

const parent = sql`
  left join ${t.messages} p on p.user_id = m.user_id and p.thread_id = m.thread_id and p.seq = m.parent_seq`

export type MessageRange = { before?: number; after?: number; order: 'asc' | 'desc'; limit: number }

function inRange({ before, after }: MessageRange) {
  // an absent bound is one that nothing exceeds, so that one plan serves all
  return sql`m.seq < ${before ?? Number.MAX_SAFE_INTEGER}::bigint and m.seq > ${after ?? 0}::bigint`
}

/** The thread's messages by seq, `limit` at most. Undefined when the user has no such thread. */
export async function listMessages(
  db: Db,
  userId: string,
  threadId: string,
  range: MessageRange,
): Promise<Message[] | undefined> {
  const direction = range.order === 'asc' ? sql`asc` : sql`desc`
  const { rows } = await sql<MessageRow & { seq: number | null }>`
    /* messages.list */
    select page.* from ${t.threads} th
      left join lateral (
        select ${columns}
          from ${t.messages} m ${parent}
         where m.user_id = th.user_id and m.thread_id = th.id and ${inRange(range)}
         order by m.seq ${direction} limit ${range.limit}
      ) page on true
     where th.user_id = ${userId} and th.id = ${threadId}::uuid
     order by page.seq ${direction}`.execute(db)
  if (rows.length === 0) return undefined
  return rows.filter(({ seq }) => seq !== null).map(toMessage)
}

/**
 * The path from the root to a message, by seq. A parent's seq is always lower, so the walk up from the leaf is the
 * path in descending order. Empty when the thread has no such message or the range leaves nothing.
 */
export async function listPath(
  db: Db,
  userId: string,
  threadId: string,
  leafId: string,
  range: MessageRange,
): Promise<Message[]> {
  const direction = range.order === 'asc' ? sql`asc` : sql`desc`
  const { rows } = await sql<MessageRow>`
    /* messages.path */
    with recursive path (seq, parent_seq) as (
      select l.seq, l.parent_seq from ${t.messages} l
       where ${byId('l', userId, threadId, leafId)}
      union all
      select up.seq, up.parent_seq from path
        join ${t.messages} up on up.user_id = ${userId} and up.thread_id = ${threadId}::uuid and up.seq = path.parent_seq
       where path.parent_seq > ${range.after ?? 0}::bigint
    )
    select ${columns} from path
      join ${t.messages} m on m.user_id = ${userId} and m.thread_id = ${threadId}::uuid and m.seq = path.seq ${parent}
     where ${inRange(range)}
     order by m.seq ${direction} limit ${range.limit}`.execute(db)
  return rows.map(toMessage)
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
    select ${columns} from ${t.messages} m ${parent}
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
    select ${columns} from m ${parent}`.execute(db)
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
      update ${t.messages} m set parent_seq = gone.parent_seq from gone
       where m.user_id = ${userId} and m.thread_id = ${threadId}::uuid and m.seq > gone.seq and m.parent_seq = gone.seq
    )
    select 1 from gone`.execute(tx)
  return rows.length > 0
}
