import { sql } from 'kysely'
import { textArray } from '../../db/arrays.ts'
import { type Db, t } from '../../db/schema.ts'
import { prepare } from './values/repo.ts'

/** The tables of a stock checkpointer. */
export type Peer = {
  schema: string
  /** Whether its writes have the column `task_path`. */
  hasTaskPath: boolean
}

const tableOf = (schema: string, name: string) => sql.id(schema, name)

/** The columns of tables by table; those that are not there are missing. */
export async function readColumns(
  db: Db,
  schema: string,
  tables: string[],
): Promise<Map<string, Set<string>>> {
  const { rows } = await sql<{ table: string; columns: string[] }>`
    /* adopt.columns */
    select c.relname::text as table, array_agg(a.attname::text) as columns
      from pg_class c join pg_namespace n on n.oid = c.relnamespace join pg_attribute a on a.attrelid = c.oid
     where n.nspname = ${schema} and c.relkind in ('r', 'p') and c.relname = any (${textArray(tables)}::text[])
       and a.attnum > 0 and not a.attisdropped
     group by 1`.execute(db)
  return new Map(rows.map(({ table, columns }) => [table, new Set(columns)]))
}

export async function readVersion(db: Db, schema: string): Promise<number | null> {
  const { rows } = await sql<{ v: number | null }>`
    /* adopt.version */ select max(v)::int as v from ${tableOf(schema, 'checkpoint_migrations')}`.execute(db)
  return rows[0]?.v ?? null
}

export async function countCheckpoints(db: Db, { schema }: Peer): Promise<number> {
  const { rows } = await sql<{ n: string }>`
    /* adopt.count */ select count(*)::text as n from ${tableOf(schema, 'checkpoints')}`.execute(db)
  return Number(rows[0]?.n)
}

/** For the transaction: every lookup is by key, and tables that are being filled have no statistics that say so. */
export async function preferKeys(tx: Db): Promise<void> {
  await sql`/* adopt.settings */
    select set_config('enable_seqscan', 'off', true), set_config('jit', 'off', true)`.execute(tx)
}

export type PeerThread = {
  id: string
  checkpoints: number
  /** Of these, not taken yet. */
  fresh: number
  /** Of these, removed here after they were taken. */
  removed: number
  /** Writes to checkpoints that were taken before, not taken yet themselves. */
  writes: number
  /** Of all values, uncompressed. */
  bytes: number
}

/** By id, as the peer's columns sort. */
export async function listThreads(
  db: Db,
  { schema }: Peer,
  userId: string,
  after: string,
  limit: number,
): Promise<PeerThread[]> {
  const checkpoints = tableOf(schema, 'checkpoints')
  const { rows } = await sql<PeerThread>`
    /* adopt.threads */
    with recursive thread (id, n) as (
      (select thread_id, 1 from ${checkpoints} where thread_id > ${after} order by thread_id limit 1)
      union all
      select (select c.thread_id from ${checkpoints} c where c.thread_id > thread.id order by c.thread_id limit 1),
             thread.n + 1
        from thread where thread.id is not null and thread.n < ${limit}
    )
    select thread.id, c.checkpoints, c.fresh, c.removed, w.writes, b.bytes
      from thread,
           lateral (
             select count(*)::int as checkpoints,
                    count(*) filter (where o.checkpoint_id is null and x.thread_id is null)::int as fresh,
                    count(*) filter (where o.checkpoint_id is null and x.thread_id is not null)::int as removed
               from ${checkpoints} c
               left join ${t.checkpoints} o on o.user_id = ${userId} and o.thread_id = c.thread_id
                and o.checkpoint_ns = c.checkpoint_ns and o.checkpoint_id = c.checkpoint_id
               left join ${t.checkpointTombstones} x on x.user_id = ${userId} and x.thread_id = c.thread_id
                and x.deleted_through >= c.checkpoint_id
              where c.thread_id = thread.id) c,
           lateral (
             select count(*)::int as writes
               from ${tableOf(schema, 'checkpoint_writes')} w join ${t.checkpoints} o
                 on o.user_id = ${userId} and o.thread_id = w.thread_id and o.checkpoint_ns = w.checkpoint_ns
                and o.checkpoint_id = w.checkpoint_id
              where w.thread_id = thread.id and not exists (${ownWrite(userId)})) w,
           lateral (
             select coalesce(sum(octet_length(b.blob)), 0)::float8 as bytes
               from ${tableOf(schema, 'checkpoint_blobs')} b where b.thread_id = thread.id) b
     where thread.id is not null
     order by thread.n`.execute(db)
  return rows
}

const ownWrite = (userId: string) => sql`
  select from ${t.checkpointWrites} o
   where o.user_id = ${userId} and o.thread_id = w.thread_id and o.checkpoint_ns = w.checkpoint_ns
     and o.checkpoint_id = w.checkpoint_id and o.task_id = w.task_id and o.idx = w.idx`

/** Finds what is to be taken of some threads, whose locks this transaction has. @returns how many checkpoints and batches of values */
export async function begin(
  tx: Db,
  { schema }: Peer,
  userId: string,
  threadIds: string[],
  batchBytes: number,
): Promise<{ checkpoints: number; batches: number }> {
  const [checkpoints, blobs] = [tableOf(schema, 'checkpoints'), tableOf(schema, 'checkpoint_blobs')]
  await prepare(tx, blobs)
  const { numAffectedRows } = await sql`
    /* adopt.find_new */
    insert into pg_temp.adopt_new (thread_id, ns, id)
    select c.thread_id, c.checkpoint_ns, c.checkpoint_id
      from ${checkpoints} c
     where c.thread_id = any (${textArray(threadIds)}::text[])
       and not exists (select from ${t.checkpoints} o
                        where o.user_id = ${userId} and o.thread_id = c.thread_id
                          and o.checkpoint_ns = c.checkpoint_ns and o.checkpoint_id = c.checkpoint_id)
       and not exists (select from ${t.checkpointTombstones} x
                        where x.user_id = ${userId} and x.thread_id = c.thread_id
                          and x.deleted_through >= c.checkpoint_id)
     order by c.thread_id collate "C", c.checkpoint_id collate "C", c.checkpoint_ns collate "C"`.execute(tx)
  await sql`
    /* adopt.find_values */
    insert into pg_temp.adopt_value (n, batch, thread_id, ns, channel, version)
    select x.n, (sum(x.bytes) over (order by x.n) / ${batchBytes}::bigint)::int, x.thread_id, x.ns, x.channel, x.version
      from (select row_number() over (order by d.first, d.channel) as n, d.*,
                   (select octet_length(b.blob) from ${blobs} b
                     where b.thread_id = d.thread_id and b.checkpoint_ns = d.ns and b.channel = d.channel
                       and b.version = d.version and b.type <> 'empty') as bytes
              from (select a.thread_id, a.ns, v.key as channel, v.value as version, min(a.n) as first
                      from pg_temp.adopt_new a join ${checkpoints} c
                        on c.thread_id = a.thread_id and c.checkpoint_ns = a.ns and c.checkpoint_id = a.id,
                           jsonb_each_text(c.checkpoint -> 'channel_versions') v
                     group by 1, 2, 3, 4) d) x
     where x.bytes is not null`.execute(tx)
  // nothing else tells the planner how much there is
  await sql`/* adopt.analyze */ analyze pg_temp.adopt_new, pg_temp.adopt_value`.execute(tx)
  const { rows } = await sql<{ batches: number }>`
    /* adopt.batches */ select coalesce(max(batch) + 1, 0)::int as batches from pg_temp.adopt_value`.execute(
    tx,
  )
  return { checkpoints: Number(numAffectedRows ?? 0), batches: rows[0]?.batches ?? 0 }
}

/** @param whole splits no lists */
export async function takeValues(tx: Db, userId: string, batch: number, whole: boolean): Promise<void> {
  await sql`/* adopt.take_values */ select pg_temp.adopt_values(${userId}, ${batch}::int, ${whole})`.execute(
    tx,
  )
}

/**
 * Takes those from the nth on, when all their values are there: one whose values the peer has removed since is gone.
 * @returns how many
 */
export async function takeCheckpoints(
  tx: Db,
  { schema }: Peer,
  userId: string,
  from: number,
  count: number,
): Promise<number> {
  // in a record as in migrations/0005_checkpoints.sql; U+FFFF is the mark of core/json.ts
  await sql`
    /* adopt.make_rows */
    insert into pg_temp.adopt_row (user_id, thread_id, checkpoint_ns, checkpoint_id, parent_id, v, hidden, channels, roots,
                                   metadata, codec, key_id, record, created_at)
    select ${userId}, a.thread_id, a.ns, a.id, nullif(c.parent_checkpoint_id, ''),
           case when c.checkpoint ->> 'v' ~ '^\\d{1,9}$' then (c.checkpoint ->> 'v')::int else 1 end, false,
           k.channels, k.roots, replace(c.metadata::text, chr(65535), chr(65535) || 'ffff')::jsonb, 0, null,
           convert_to('{"c":' || (jsonb '{"channel_versions":{},"versions_seen":{}}' || jsonb_strip_nulls(jsonb_build_object(
                                   'channel_versions', c.checkpoint -> 'channel_versions',
                                   'versions_seen', c.checkpoint -> 'versions_seen'))
                                  || (c.checkpoint - '{channel_versions,versions_seen,channel_values}'::text[]))::text
                      || ',"k":[' || k.entries || ']}', 'UTF8'),
           coalesce(pg_temp.adopt_time(c.checkpoint ->> 'ts'), now())
      from pg_temp.adopt_new a join ${tableOf(schema, 'checkpoints')} c
        on c.thread_id = a.thread_id and c.checkpoint_ns = a.ns and c.checkpoint_id = a.id,
           lateral (
             select coalesce(array_agg(e.channel order by e.channel), '{}') as channels,
                    coalesce(array_agg(e.root order by e.channel), '{}') as roots,
                    coalesce(string_agg('[' || to_json(e.channel) || ',"' || e.kind || '"' || coalesce(',' || e.inline, '')
                                        || ']', ',' order by e.channel), '') as entries,
                    coalesce(bool_and(e.kind is not null), true) as complete
               from (select x.channel, x.kind, x.root, x.inline
                       from jsonb_each_text(c.checkpoint -> 'channel_versions') v join pg_temp.adopt_value x
                         on x.thread_id = a.thread_id and x.ns = a.ns and x.channel = v.key and x.version = v.value
                     union all
                     -- small values may be in the checkpoint itself
                     select i.key, 'i', null, i.value::text
                       from jsonb_each(case when jsonb_typeof(c.checkpoint -> 'channel_values') = 'object'
                                            then c.checkpoint -> 'channel_values' else '{}' end) i
                      where not exists (select from pg_temp.adopt_value x
                                         where x.thread_id = a.thread_id and x.ns = a.ns and x.channel = i.key
                                           and x.version = c.checkpoint -> 'channel_versions' ->> i.key)) e) k
     where a.n >= ${from} and a.n < ${from + count} and k.complete`.execute(tx)
  const { numAffectedRows } = await sql`
    /* adopt.take_checkpoints */
    insert into ${t.checkpoints} (user_id, thread_id, checkpoint_ns, checkpoint_id, parent_id, v, channels, roots, metadata,
                                  codec, key_id, record, created_at)
    select user_id, thread_id, checkpoint_ns, checkpoint_id, parent_id, v, channels, roots, metadata, codec, key_id, record,
           created_at
      from pg_temp.adopt_row
        on conflict do nothing`.execute(tx)
  await sql`/* adopt.clear */ truncate pg_temp.adopt_row`.execute(tx)
  return Number(numAffectedRows ?? 0)
}

/** Takes the writes to checkpoints that are here; those that are here stay. @returns how many */
export async function takeWrites(tx: Db, peer: Peer, userId: string, threadIds: string[]): Promise<number> {
  const { numAffectedRows } = await sql`
    /* adopt.take_writes */
    insert into ${t.checkpointWrites} (user_id, thread_id, checkpoint_ns, checkpoint_id, task_id, idx, task_path, channel,
                                       type, codec, data)
    select ${userId}, w.thread_id, w.checkpoint_ns, w.checkpoint_id, w.task_id, w.idx,
           ${peer.hasTaskPath ? sql`coalesce(w.task_path, '')` : sql`''`}, w.channel, coalesce(w.type, 'json'), 1, w.blob
      from ${tableOf(peer.schema, 'checkpoint_writes')} w
     where w.thread_id = any (${textArray(threadIds)}::text[])
       and exists (select from ${t.checkpoints} c
                    where c.user_id = ${userId} and c.thread_id = w.thread_id and c.checkpoint_ns = w.checkpoint_ns
                      and c.checkpoint_id = w.checkpoint_id and not c.hidden)
       and not exists (${ownWrite(userId)})
        on conflict do nothing`.execute(tx)
  return Number(numAffectedRows ?? 0)
}

/** So that what is removed here later is remembered for good, and not taken again. */
export async function markAdopted(tx: Db, userId: string, threadIds: string[]): Promise<void> {
  await sql`
    /* adopt.mark */
    insert into ${t.checkpointTombstones} as tomb (user_id, thread_id, deleted_through, deleted_at)
    select ${userId}, i.id, '', timestamptz 'infinity' from unnest(${textArray(threadIds)}::text[]) i (id)
        on conflict (user_id, thread_id) do update set deleted_at = 'infinity'`.execute(tx)
}

/** What the threads take in the peer's tables and in ours, as stored, without indexes. */
export async function measure(
  tx: Db,
  { schema }: Peer,
  userId: string,
  threadIds: string[],
): Promise<{ before: number; after: number }> {
  const ids = textArray(threadIds)
  const total = (columns: string[], from: ReturnType<typeof sql>, alias: string) => sql`
    (select coalesce(sum(${sql.join(
      columns.map((column) => sql`coalesce(pg_column_size(${sql.ref(`${alias}.${column}`)}), 0)`),
      sql` + `,
    )}), 0) from ${from} where ${sql.ref(`${alias}.thread_id`)} = any (${ids}::text[]))`
  const peer = (name: string) => sql`${tableOf(schema, name)} x`
  const own = (table: ReturnType<typeof sql.table>) =>
    sql`(select * from ${table} where user_id = ${userId}) x`
  const { rows } = await sql<{ before: number; after: number }>`
    /* adopt.measure */
    select (${total(['checkpoint', 'metadata'], peer('checkpoints'), 'x')}
            + ${total(['blob'], peer('checkpoint_blobs'), 'x')}
            + ${total(['blob'], peer('checkpoint_writes'), 'x')})::float8 as before,
           (${total(['record', 'metadata', 'roots'], own(t.checkpoints), 'x')}
            + ${total(['data', 'refs'], own(t.checkpointBlobs), 'x')}
            + ${total(['data'], own(t.checkpointWrites), 'x')})::float8 as after`.execute(tx)
  return rows[0] ?? { before: 0, after: 0 }
}
