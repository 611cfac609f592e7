import { type Selectable, sql } from 'kysely'
import { encodeJsonb } from '../core/json.ts'
import { mergePatch } from '../db/merge-patch.ts'
import { type Db, type ThreadsTable, t } from '../db/schema.ts'
import type { NewThread, Thread, ThreadKind, ThreadPatch, ThreadQuery } from './schema.ts'

const columns = [
  'user_id',
  'id',
  'title',
  'kind',
  'meta',
  'last_seq',
  'forked_from',
  'created_at',
  'updated_at',
  'archived_at',
  'ended_at',
] as const

type ThreadRow = Pick<Selectable<ThreadsTable>, (typeof columns)[number]>

const selected = sql.join(columns.map((column) => sql.ref(column)))

function toThread(row: ThreadRow): Thread {
  return {
    id: row.id,
    userId: row.user_id,
    title: row.title,
    kind: row.kind as ThreadKind,
    meta: row.meta,
    lastSeq: row.last_seq,
    forkedFrom: row.forked_from,
    createdAt: row.created_at,
    updatedAt: row.updated_at,
    archivedAt: row.archived_at,
    endedAt: row.ended_at,
  }
}

/** Undefined when the user has a thread of this id already. */
export async function insertThread(
  db: Db,
  userId: string,
  thread: Required<Pick<NewThread, 'id'>> & NewThread,
  digest: string | null,
): Promise<Thread | undefined> {
  const { rows } = await sql<ThreadRow>`
    /* threads.create */
    insert into ${t.threads} (user_id, id, title, kind, meta, digest)
    values (${userId}, ${thread.id}, ${thread.title ?? null}, ${thread.kind ?? 'chat'},
            ${encodeJsonb(thread.meta ?? {})}::jsonb, decode(${digest}::text, 'hex'))
    on conflict (user_id, id) do nothing
    returning ${selected}`.execute(db)
  return rows[0] && toThread(rows[0])
}

/** A thread of an import: what a client cannot choose may be given. */
export type BulkThread = {
  id: string
  title: string | null
  /** Default `chat`. */
  kind?: ThreadKind
  meta: Record<string, unknown>
  /** Default: now. */
  createdAt?: Date
  updatedAt?: Date
}

/** Makes threads in one statement. Returns the ids of those that the user did not have. */
export async function insertThreads(db: Db, userId: string, threads: BulkThread[]): Promise<string[]> {
  const times = (key: 'createdAt' | 'updatedAt') =>
    threads.map((thread) => thread[key]?.toISOString() ?? null)
  const { rows } = await sql<{ id: string }>`
    /* threads.create_many */
    insert into ${t.threads} (user_id, id, title, kind, meta, created_at, updated_at)
    select ${userId}, i.id, i.title, i.kind, i.meta::jsonb, coalesce(i.created_at, now()),
           coalesce(i.updated_at, i.created_at, now())
      from unnest(${threads.map(({ id }) => id)}::uuid[], ${threads.map(({ title }) => title)}::text[],
                  ${threads.map(({ kind = 'chat' }) => kind)}::text[],
                  ${threads.map(({ meta }) => encodeJsonb(meta))}::text[],
                  ${times('createdAt')}::timestamptz[], ${times('updatedAt')}::timestamptz[])
           as i (id, title, kind, meta, created_at, updated_at)
     -- in one order, so that two such statements cannot wait for each other
     order by i.id
    on conflict (user_id, id) do nothing
    returning id`.execute(db)
  return rows.map(({ id }) => id)
}

/** Those of the threads that the user has, in no order. */
export async function findThreads(db: Db, userId: string, ids: string[]): Promise<Thread[]> {
  const { rows } = await sql<ThreadRow>`
    /* threads.get_many */
    select ${selected} from ${t.threads} where user_id = ${userId} and id = any(${ids}::uuid[])`.execute(db)
  return rows.map(toThread)
}

export async function findThread(db: Db, userId: string, id: string): Promise<Thread | undefined> {
  const { rows } = await sql<ThreadRow>`
    /* threads.get */
    select ${selected} from ${t.threads} where user_id = ${userId} and id = ${id}::uuid`.execute(db)
  return rows[0] && toThread(rows[0])
}

/** The digest of the body that made the thread, as hex; null when its id was made by us. */
export async function findThreadDigest(
  db: Db,
  userId: string,
  id: string,
): Promise<string | null | undefined> {
  const { rows } = await sql<{ digest: string | null }>`
    /* threads.digest */
    select encode(digest, 'hex') as digest from ${t.threads} where user_id = ${userId} and id = ${id}::uuid`.execute(
    db,
  )
  return rows[0]?.digest
}

export type ThreadKey = { updatedAt: Date; id: string }

/** Newest update first, ids descending among equals; `limit` rows at most, below `after`. */
export async function listThreads(
  db: Db,
  userId: string,
  query: Pick<ThreadQuery, 'includeArchived' | 'kind' | 'q'> & { limit: number; after?: ThreadKey },
): Promise<Thread[]> {
  let select = db
    .selectFrom('threads')
    .select(columns)
    .modifyFront(sql`/* threads.list */`)
    .where('user_id', '=', userId)
  const { after, kind, q } = query
  if (query.includeArchived !== true) select = select.where('archived_at', 'is', null)
  if (kind !== undefined) select = select.where('kind', '=', kind)
  if (q !== undefined && q !== '') select = select.where(sql<boolean>`strpos(lower(title), lower(${q})) > 0`)
  if (after !== undefined) {
    select = select.where(
      sql<boolean>`(updated_at, id) < (${after.updatedAt}::timestamptz, ${after.id}::uuid)`,
    )
  }
  const rows = await select.orderBy('updated_at', 'desc').orderBy('id', 'desc').limit(query.limit).execute()
  return rows.map(toThread)
}

/** Undefined when there is no such thread. */
export async function updateThread(
  db: Db,
  userId: string,
  id: string,
  patch: ThreadPatch,
): Promise<Thread | undefined> {
  const title = patch.title === undefined ? sql`title` : sql`${patch.title}::text`
  const meta = patch.meta === undefined ? sql`meta` : mergePatch(sql`meta`, patch.meta)
  const { rows } = await sql<ThreadRow>`
    /* threads.update */
    update ${t.threads} set title = ${title}, meta = ${meta}, updated_at = greatest(updated_at, now())
     where user_id = ${userId} and id = ${id}::uuid returning ${selected}`.execute(db)
  return rows[0] && toThread(rows[0])
}

/** Sets a mark to now unless it is set, or clears it; no update when it is so already. Undefined when there is no such thread. */
export async function markThread(
  db: Db,
  userId: string,
  id: string,
  mark: 'archived_at' | 'ended_at',
  on: boolean,
): Promise<Thread | undefined> {
  const column = sql.ref(mark)
  const value = on ? sql`coalesce(${column}, now())` : sql`null`
  const changes = on ? sql`${column} is null` : sql`${column} is not null`
  const { rows } = await sql<ThreadRow>`
    /* threads.mark */
    update ${t.threads}
       set ${column} = ${value}, updated_at = case when ${changes} then greatest(updated_at, now()) else updated_at end
     where user_id = ${userId} and id = ${id}::uuid returning ${selected}`.execute(db)
  return rows[0] && toThread(rows[0])
}

/**
 * Locks a thread and its forks, which a deletion of it touches, in the order in which appends lock threads: any other
 * order can deadlock with them.
 */
export async function lockThreadAndForks(tx: Db, userId: string, id: string): Promise<void> {
  await sql`
    /* threads.lock */
    select 1 from ${t.threads}
     where user_id = ${userId} and id = any (array(
       select ${id}::uuid
       union all
       select id from ${t.threads} where user_id = ${userId} and forked_from = ${id}::uuid))
     order by user_id, id for update`.execute(tx)
}

/** Its messages and configuration go with it. Under {@link lockThreadAndForks}. False when there was none. */
export async function deleteThread(tx: Db, userId: string, id: string): Promise<boolean> {
  const { numAffectedRows } = await sql`
    /* threads.delete */
    delete from ${t.threads} where user_id = ${userId} and id = ${id}::uuid`.execute(tx)
  return numAffectedRows === 1n
}

/**
 * An id for each message `m` of a fork: a UUID of version 7 that begins like the fork's own id, its time and first random
 * bits, and ends with seq. So ten thousand of them go into one end of the index, not all over it.
 */
function messageIdsOf(forkId: string) {
  return sql`(${forkId.slice(0, -12)}::text || lpad(to_hex(m.seq), 12, '0'))::uuid`
}

/**
 * Copies a thread with its messages up to `at` (all when undefined) and its configuration, in one statement inside
 * the database. Messages keep seq, parent and message_id and get ids of their own. Their embeddings are copied in the
 * background: to add ten thousand to an index takes a minute.
 * Undefined when there is no such thread, or it has not reached `at`.
 */
export async function forkThread(
  db: Db,
  userId: string,
  id: string,
  forkId: string,
  at: number | undefined,
): Promise<Thread | undefined> {
  const { rows } = await sql<ThreadRow>`
    /* threads.fork */
    with source as (
      select * from ${t.threads}
       where user_id = ${userId} and id = ${id}::uuid and last_seq >= coalesce(${at ?? null}::bigint, 0)
         for key share -- one that is being deleted is waited for and then not there
    ), fork as (
      insert into ${t.threads} (user_id, id, title, kind, meta, last_seq, forked_from)
      select s.user_id, ${forkId}::uuid, s.title, s.kind, s.meta, coalesce(${at ?? null}::bigint, s.last_seq), s.id
        from source s
      returning ${selected}
    ), copied as (
      insert into ${t.messages} (user_id, thread_id, seq, id, message_id, parent_seq, role, content, text,
                                 tool_name, tool_input, tool_output, meta, digest, created_at, words)
      select m.user_id, ${forkId}::uuid, m.seq, ${messageIdsOf(forkId)}, m.message_id, m.parent_seq, m.role, m.content, m.text,
             m.tool_name, m.tool_input, m.tool_output, m.meta, m.digest, m.created_at, m.words
        from source s
        join ${t.messages} m on m.user_id = ${userId} and m.thread_id = ${id}::uuid
                            and m.seq <= coalesce(${at ?? null}::bigint, s.last_seq)
    ), configured as (
      insert into ${t.configs} (user_id, thread_id, model, temperature, system_prompt, context_window, settings)
      select c.user_id, ${forkId}::uuid, c.model, c.temperature, c.system_prompt, c.context_window, c.settings
        from source s join ${t.configs} c on c.user_id = s.user_id and c.thread_id = s.id
    )
    select * from fork`.execute(db)
  return rows[0] && toThread(rows[0])
}

/** Whether the user's data was erased. */
export async function isErased(db: Db, userId: string): Promise<boolean> {
  const { rows } = await sql`
    /* erased_users.find */ select from ${t.erasedUsers} where user_id = ${userId}`.execute(db)
  return rows.length > 0
}
