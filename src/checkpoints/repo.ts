import { type RawBuilder, sql } from 'kysely'
import { byteaArray, intArray, textArray, uuidArray } from '../db/arrays.ts'
import { type Db, t } from '../db/schema.ts'
import type { Address } from './address.ts'
import type { Coded } from './codec.ts'
import type { StoredBlob, StoredCheckpoint } from './decode.ts'

export type ThreadKey = { userId: string; threadId: string }
export type CheckpointKey = ThreadKey & { ns: string; id: string }

export type CheckpointRow = CheckpointKey & {
  parentId: string | null
  v: number
  channels: string[]
  roots: (Address | null)[]
  /** For jsonb. */
  metadata: string
  record: Coded
  /** Null for now. */
  createdAt: string | null
}

/** A value or, when nothing is coded, a node. */
export type BlobRow = {
  hash: Address
  type: string | null
  coded: Coded | null
  parts: Address[]
  height: number
}

export type PutOutcome = 'stored' | 'replaced' | 'missing' | 'conflict'

/**
 * Stores a checkpoint with its new blobs in one statement (see migrations/0005_checkpoints.sql).
 * @param expected what the rows refer to and the caller believes to be stored
 * @param children how many children of the parent the caller knows; null when that does not matter
 */
export async function putCheckpoint(
  db: Db,
  row: CheckpointRow,
  blobs: BlobRow[],
  expected: Address[],
  children: number | null,
): Promise<PutOutcome> {
  const { rows } = await sql<{ outcome: PutOutcome }>`
    /* checkpoints.put */
    select ${t.putCheckpoint}(
      ${row.userId}, ${row.threadId}, ${row.ns}, ${row.id}, ${row.parentId}, ${row.v}::int,
      ${textArray(row.channels)}::text[], ${uuidArray(row.roots)}::uuid[], ${row.metadata},
      ${row.record.codec}::int, ${row.record.keyId}, ${toBuffer(row.record.data)}::bytea, ${row.createdAt}::timestamptz,
      ${uuidArray(blobs.map(({ hash }) => hash))}::uuid[], ${textArray(blobs.map(({ type }) => type))}::text[],
      ${intArray(blobs.map(({ coded, height }) => coded?.codec ?? height))}::int[],
      ${textArray(blobs.map(({ coded }) => coded?.keyId ?? null))}::text[],
      ${byteaArray(blobs.map(({ coded }) => coded?.data ?? null))}::bytea[],
      ${intArray(blobs.map(({ parts }) => parts.length))}::int[], ${uuidArray(blobs.flatMap(({ parts }) => parts))}::uuid[],
      ${uuidArray(expected)}::uuid[], ${children}::int) as outcome`.execute(db)
  return (rows[0] as { outcome: PutOutcome }).outcome
}

/** `pg` sends a Buffer as it is, any other view as text. */
function toBuffer(data: Uint8Array): Buffer {
  return Buffer.isBuffer(data) ? data : Buffer.from(data.buffer, data.byteOffset, data.byteLength)
}

export type WriteRow = { idx: number; channel: string; type: string; coded: Coded }

/** False when the checkpoint was removed: then nothing is stored. */
export async function putWrites(
  db: Db,
  { userId, threadId, ns, id }: CheckpointKey,
  task: { id: string; path: string },
  writes: WriteRow[],
): Promise<boolean> {
  const { rows } = await sql<{ stored: boolean }>`
    /* checkpoints.put_writes */
    select ${t.putCheckpointWrites}(
      ${userId}, ${threadId}, ${ns}, ${id}, ${task.id}, ${task.path},
      ${intArray(writes.map(({ idx }) => idx))}::int[], ${textArray(writes.map(({ channel }) => channel))}::text[],
      ${textArray(writes.map(({ type }) => type))}::text[], ${intArray(writes.map(({ coded }) => coded.codec))}::int[],
      ${textArray(writes.map(({ coded }) => coded.keyId))}::text[],
      ${byteaArray(writes.map(({ coded }) => coded.data))}::bytea[]) as stored`.execute(db)
  return rows[0]?.stored === true
}

export type StoredWrite = {
  ns: string
  id: string
  taskId: string
  idx: number
  taskPath: string
  channel: string
  type: string
  codec: number
  keyId: string | null
  text: string | null
  data: Buffer | null
}

export type Found = StoredCheckpoint & {
  v: number
  writes: StoredWrite[]
  /** Of a checkpoint of an old format: what its parent sent. */
  sends: StoredWrite[]
  /** How many checkpoints have this one as parent; 0 unless it was asked for. */
  children: number
}

export type Read = {
  checkpoints: Found[]
  blobs: Map<Address, StoredBlob>
  /** How many checkpoints of the namespace have no parent, where none was found; 0 unless it was asked for. */
  begun: number
}

export type Query = {
  userId: string
  threadId?: string
  ns?: string
  id?: string
  beforeId?: string
  /** Metadata fields that must equal, as JSON for jsonb. */
  filter?: string
  /** Metadata fields that must not be there. */
  absent?: string[]
  /** The last checkpoint that was seen. */
  after?: { id: string; ns: string; threadId: string }
  limit: number
}

/** Newest first, with everything they are made of, in one statement. */
export async function readCheckpoints(
  db: Db,
  query: Query,
  options: { children?: boolean } = {},
): Promise<Read> {
  const { userId } = query
  const { rows } = await sql<Row>`
    /* checkpoints.read */
    with recursive head as materialized (
      select row_number() over (order by h.checkpoint_id desc, h.checkpoint_ns, h.thread_id)::int as at, h.*,
             null::text[] as wanted
        from (
          select * from ${t.checkpoints} where ${conditions(query)} and not hidden
           order by checkpoint_id desc, checkpoint_ns, thread_id limit ${query.limit}
        ) h
    )
    select 'checkpoint' as kind, h.at, h.checkpoint_id as k1, h.checkpoint_ns as k2, h.thread_id as k3, h.parent_id as k4,
           h.metadata::text as k5, h.v as n, ${options.children === true ? countChildren : sql`0`} as n2, h.codec, h.key_id,
           ${readable('h', 'record')}, h.roots::text as refs
      from head h
    union all ${blobsOfHead(userId)} union all ${writesOfHead(userId)}
    ${options.children === true ? countBegun(query) : sql``}
    union all
    select 'send', h.at, w.checkpoint_id, w.checkpoint_ns, w.task_id, w.channel, w.task_path, w.idx, 0, w.codec, w.key_id,
           ${readable('w', 'data')}, w.type
      from head h join ${t.checkpointWrites} w
        on w.user_id = ${userId} and w.thread_id = h.thread_id and w.checkpoint_ns = h.checkpoint_ns
       and w.checkpoint_id = h.parent_id and h.v < 4 and w.channel = '__pregel_tasks'`.execute(db)
  return collect(rows)
}

export type PathQuery = ThreadKey & { ns: string; id: string | undefined; channels: string[] }

/**
 * The ancestors of a checkpoint, nearest first, each with the writes to those of the channels that no nearer ancestor
 * has a value of, and with its values of them; up to the root, or to where all channels have a value.
 */
export async function readPath(db: Db, { userId, threadId, ns, id, channels }: PathQuery): Promise<Read> {
  const inNs = sql`user_id = ${userId} and thread_id = ${threadId} and checkpoint_ns = ${ns}`
  const { rows } = await sql<Row>`
    /* checkpoints.path */
    with recursive start as materialized (
      select parent_id from ${t.checkpoints}
       where ${inNs} and not hidden ${id === undefined ? sql`` : sql`and checkpoint_id = ${id}`}
       order by checkpoint_id desc limit 1
    ), path as (
      select 1 as at, p.*, ${textArray(channels)}::text[] as wanted
        from start, lateral (
          select * from ${t.checkpoints} where ${inNs} and checkpoint_id = start.parent_id limit 1) p
      union all
      select path.at + 1, p.*, open.channels
        from path, lateral (select array(select unnest(path.wanted) except select unnest(path.channels)) as channels) open,
             lateral (
          select * from ${t.checkpoints} where ${inNs} and checkpoint_id = path.parent_id limit 1) p
       where cardinality(open.channels) > 0
    ), head as materialized (
      select path.at, path.user_id, path.thread_id, path.checkpoint_ns, path.checkpoint_id, path.parent_id, path.v,
             path.metadata, path.codec, path.key_id, path.record, path.wanted,
             array(select case when c.name = any (path.wanted) then c.root end
                     from unnest(path.channels, path.roots) with ordinality as c (name, root, n) order by c.n) as roots,
             path.channels && path.wanted as has_seed
        from path
    )
    select 'checkpoint' as kind, h.at, h.checkpoint_id as k1, h.checkpoint_ns as k2, h.thread_id as k3, h.parent_id as k4,
           null as k5, h.v as n, 0 as n2, h.codec, h.key_id,
           case when h.has_seed then ${textOf('h', 'record')} end as text,
           case when h.has_seed then ${bytesOf('h', 'record')} end as data, h.roots::text as refs
      from head h
    union all ${blobsOfHead(userId)} union all ${writesOfHead(userId)}`.execute(db)
  return collect(rows)
}

type Column = [table: 'h' | 'p' | 'w', column: 'record' | 'data']
const isText = (table: Column[0]) => sql`(${sql.ref(table)}.codec = 0 and ${sql.ref(table)}.key_id is null)`
const textOf = (...[table, column]: Column) =>
  sql`case when ${isText(table)} then convert_from(${sql.ref(`${table}.${column}`)}, 'UTF8') end`
const bytesOf = (...[table, column]: Column) =>
  sql`case when not ${isText(table)} then ${sql.ref(`${table}.${column}`)} end`
/** What is UTF-8 comes as text: bytes come as hexadecimal digits, to be read back. */
const readable = (...column: Column) => sql`${textOf(...column)} as text, ${bytesOf(...column)} as data`

/** Every value and node below the roots of `head`. */
const blobsOfHead = (userId: string) => sql`
  select 'blob', 0, p.hash::text, p.type, null, null, null, 0, 0, p.codec, p.key_id, ${readable('p', 'data')}, p.refs::text
    from (select head.thread_id, array_agg(distinct r.hash) as hashes
            from head, unnest(head.roots) r (hash) where r.hash is not null group by 1) top,
         lateral ${t.checkpointParts}(${userId}, top.thread_id, top.hashes) p`

const writesOfHead = (userId: string) => sql`
  select 'write', h.at, w.checkpoint_id, w.checkpoint_ns, w.task_id, w.channel, w.task_path, w.idx, 0, w.codec, w.key_id,
         ${readable('w', 'data')}, w.type
    from head h, lateral (
           select * from ${t.checkpointWrites} w
            where w.user_id = ${userId} and w.thread_id = h.thread_id and w.checkpoint_ns = h.checkpoint_ns
              and w.checkpoint_id = h.checkpoint_id and (h.wanted is null or w.channel = any (h.wanted)) offset 0) w`

const countChildren = sql`(select count(*) from ${t.checkpoints} c
  where c.user_id = h.user_id and c.thread_id = h.thread_id and c.checkpoint_ns = h.checkpoint_ns
    and c.checkpoint_id > h.checkpoint_id and c.parent_id = h.checkpoint_id and not c.hidden)::int`

// a namespace of which nothing was found may have begun later than what was asked for
const countBegun = ({ userId, threadId, ns }: Query) =>
  threadId === undefined || ns === undefined
    ? sql``
    : sql`union all
    select 'begun', 0, '', null, null, null, null, count(*)::int, 0, 0, null, null, null, null
      from ${t.checkpoints}
     where user_id = ${userId} and thread_id = ${threadId} and checkpoint_ns = ${ns} and parent_id is null and not hidden
       and not exists (select from head)`

function conditions(query: Query): RawBuilder<unknown> {
  const all = [sql`user_id = ${query.userId}`]
  if (query.threadId !== undefined) all.push(sql`thread_id = ${query.threadId}`)
  if (query.ns !== undefined) all.push(sql`checkpoint_ns = ${query.ns}`)
  if (query.id !== undefined) all.push(sql`checkpoint_id = ${query.id}`)
  if (query.beforeId !== undefined) all.push(sql`checkpoint_id < ${query.beforeId}`)
  if (query.filter !== undefined) {
    all.push(sql`not exists (select from jsonb_each(${query.filter}::jsonb) f
                              where metadata -> f.key is distinct from f.value)`)
  }
  if (query.absent !== undefined) all.push(sql`not metadata ?| ${textArray(query.absent)}::text[]`)
  if (query.after !== undefined) {
    const { id, ns, threadId } = query.after
    all.push(sql`(checkpoint_id < ${id}
                  or (checkpoint_id = ${id} and (checkpoint_ns, thread_id) > (${ns}, ${threadId})))`)
  }
  return sql.join(all, sql` and `)
}

type Row = {
  kind: 'checkpoint' | 'blob' | 'write' | 'send' | 'begun'
  at: number
  k1: string
  k2: string | null
  k3: string
  k4: string
  k5: string
  n: number
  n2: number
  codec: number
  key_id: string | null
  text: string | null
  data: Buffer | null
  refs: string | null
}

function collect(rows: Row[]): Read {
  const checkpoints: Found[] = []
  const blobs: Read['blobs'] = new Map()
  let begun = 0
  for (const row of rows) {
    if (row.kind === 'checkpoint') checkpoints[row.at - 1] = toFound(row)
    else if (row.kind === 'blob') blobs.set(row.k1, toBlob(row))
    else if (row.kind === 'begun') begun = row.n
  }
  for (const row of rows) {
    const found = checkpoints[row.at - 1]
    if (row.kind === 'write') found?.writes.push(toWrite(row))
    else if (row.kind === 'send') found?.sends.push(toWrite(row))
  }
  return { checkpoints, blobs, begun }
}

const coded = ({ codec, key_id, text, data }: Pick<Row, 'codec' | 'key_id' | 'text' | 'data'>) => ({
  codec,
  keyId: key_id,
  text,
  data,
})

function toFound(row: Row): Found {
  return {
    ...coded(row),
    threadId: row.k3,
    ns: row.k2 as string,
    id: row.k1,
    parentId: row.k4,
    metadata: row.k5,
    roots: parseRefs(row.refs as string),
    v: row.n,
    writes: [],
    sends: [],
    children: row.n2,
  }
}

const toBlob = (row: Row): StoredBlob => ({
  ...coded(row),
  type: row.k2,
  parts: row.refs === null ? undefined : (parseRefs(row.refs) as Address[]),
})

const toWrite = (row: Row): StoredWrite => ({
  ...coded(row),
  ns: row.k2 as string,
  id: row.k1,
  taskId: row.k3,
  idx: row.n,
  taskPath: row.k5,
  channel: row.k4,
  type: row.refs as string,
})

/** The text of a `uuid[]`, whose parts need no quotes. */
function parseRefs(text: string): (Address | null)[] {
  if (text === '{}') return []
  return text
    .slice(1, -1)
    .split(',')
    .map((one) => (one === 'NULL' ? null : one))
}
