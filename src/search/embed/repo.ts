import { type RawBuilder, sql } from 'kysely'
import { intArray, realArray, textArray, uuidArray } from '../../db/arrays.ts'
import { type Db, t } from '../../db/schema.ts'
import { DIMENSIONS } from '../../embeddings/embedder.ts'
import { MAX_CHARS } from '../../embeddings/text.ts'

/** What has an embedding: a message, or the result of a session. */
export type Kind = 'message' | 'analysis'

/** Of rows `m`: those of users whose data is being erased are given no embedding. */
export const isKept = sql`not exists (select from ${t.erasedUsers} e where e.user_id = m.user_id)`

export const TABLE = { message: t.messages, analysis: t.chainAnalysisResults } as const
const ID = { message: sql.ref('id'), analysis: sql.ref('session_id') } as const
const idOf = (kind: Kind, table: string) => sql.ref(`${table}.${kind === 'message' ? 'id' : 'session_id'}`)

/** A row that this process has claimed. */
export type Claimed = {
  userId: string
  id: string
  /** Of a result, which may be another by the time it is stored; 0 for a message, which never changes. */
  version: number
  /** What is embedded, longer than any model reads. */
  text: string
  /** The message that this one is a copy of, where that has its embedding. */
  copyOf: string | null
}

export type ClaimOptions = {
  kind: Kind
  model: string
  /** Rows of this model; null: rows that no model has come to. */
  of: string | null
  holder: string
  leaseMs: number
  limit: number
}

type ClaimRow = {
  seen: number
  user_id: string | null
  id: string
  version: number
  text: string
  copy_of: string | null
}

/**
 * Claims the newest rows that wait and that nobody else is at, in one statement.
 * @returns `contended` when there were such rows and another process was faster
 */
export async function claim(db: Db, options: ClaimOptions): Promise<{ rows: Claimed[]; contended: boolean }> {
  const { kind, model, of, holder, leaseMs, limit } = options
  const wait = of === null ? sql`m.embedding_model is null` : sql`m.embedding_model = ${of}`
  // The order is that of the index read backwards, in which a model comes first: to the planner, `is null` fixes none.
  const { rows } = await sql<ClaimRow>`
    /* embeddings.claim */
    with waiting as materialized (
      select m.user_id, ${idOf(kind, 'm')} as id from ${TABLE[kind]} m
       where ${wait}
         and not exists (select from ${t.embeddingClaims} c
                          where c.user_id = m.user_id and c.id = ${idOf(kind, 'm')} and c.until > now())
         and ${isKept}
       order by m.embedding_model desc, ${idOf(kind, 'm')} desc limit ${limit}
    ), claimed as (
      insert into ${t.embeddingClaims} as c (user_id, id, holder, until)
      select user_id, id, ${holder}::uuid, now() + ${leaseMs}::float8 * interval '1 millisecond' from waiting
      on conflict (user_id, id) do update set holder = excluded.holder, until = excluded.until
       where c.until <= now()
      returning user_id, id
    )
    select s.seen, f.* from (select count(*)::int as seen from waiting) s
      left join (select k.user_id, k.id, row.* from claimed k, lateral (${claimedRow(kind, model)}) row) f on true`.execute(
    db,
  )
  const found = rows.filter(({ user_id }) => user_id !== null)
  return {
    rows: found.map(({ user_id, id, version, text, copy_of }) => ({
      ...{ userId: String(user_id), id, version, text, copyOf: copy_of },
    })),
    contended: found.length === 0 && (rows[0]?.seen ?? 0) > 0,
  }
}

// twice the letters that a model reads: white space before them does not count
const TEXT = sql.lit(2 * MAX_CHARS)

function claimedRow(kind: Kind, model: string): RawBuilder<unknown> {
  if (kind === 'analysis')
    return sql`
      select r.version, left(r.text, ${TEXT}) as text, null::uuid as copy_of from ${t.chainAnalysisResults} r
       where r.user_id = k.user_id and r.session_id = k.id`
  // ranges and an order: plans that were made while the tables were small must not walk along them
  return sql`
    select 0 as version, left(${t.messageText}(m.text, m.content, m.tool_name, m.tool_output), ${TEXT}) as text,
           (select o.id from ${t.threads} th, lateral (
              select o.id, o.digest, o.embedding_model from ${t.messages} o
               where o.user_id = m.user_id and o.thread_id = th.forked_from and o.seq >= m.seq and o.seq <= m.seq
               order by o.seq limit 1) o
             where th.user_id = m.user_id and th.id = m.thread_id and th.forked_from is not null
               and o.digest = m.digest and o.embedding_model = ${model}) as copy_of
      from ${t.messages} m
     where m.user_id = k.user_id and m.id >= k.id and m.id <= k.id
     order by m.id limit 1`
}

/** What is stored for a row that was claimed. */
export type Embedded = Pick<Claimed, 'userId' | 'id' | 'version'> & {
  /** Null: there is nothing to embed, or the model refuses it. */
  vector: Float32Array | null
}

export type StoreOptions = {
  kind: Kind
  model: string
  holder: string
  /** Of the extension `vector`. */
  extensionSchema: string
}

/**
 * Stores embeddings of rows that are still there and still say the same, and gives up their claims, in one statement.
 * @returns how many rows have one now that had none of this model
 */
export async function store(db: Db, rows: Embedded[], options: StoreOptions): Promise<number> {
  const { kind, model, holder, extensionSchema } = options
  const vectors = rows.flatMap(({ vector }) => (vector === null ? [] : [vector]))
  const numbers = new Float32Array(vectors.length * DIMENSIONS)
  for (const [i, vector] of vectors.entries()) numbers.set(vector, i * DIMENSIONS)
  let next = 1
  const places = rows.map(({ vector }) => {
    if (vector === null) return null
    const at = next
    next += DIMENSIONS
    return at
  })
  const type = sql`${sql.id(extensionSchema)}.vector`
  const { rows: counts } = await sql<{ stored: number }>`
    /* embeddings.store */
    with given as (
      select * from unnest(${textArray(rows.map(({ userId }) => userId))}::text[],
                           ${uuidArray(rows.map(({ id }) => id))}::uuid[],
                           ${intArray(rows.map(({ version }) => version))}::int[],
                           ${intArray(places)}::int[]) as g (user_id, id, version, at)
    ), places as (
      select g.*, p.place from given g, lateral (${placeOf(kind)}) p
    ), stored as (
      update ${TABLE[kind]} m
         set embedding_model = ${model},
             embedding = case when p.at is null then null else
               ((${realArray(numbers)}::real[])[p.at:p.at + ${sql.lit(DIMENSIONS - 1)}])::${type} end
        from places p
       where m.ctid = p.place and m.embedding_model is distinct from ${model}
         ${kind === 'analysis' ? sql`and m.version = p.version` : sql``}
      returning 1
    ), released as (${release(holder)})
    select count(*)::int as stored from stored`.execute(db)
  return counts[0]?.stored ?? 0
}

/** Where the row of `g` is. */
function placeOf(kind: Kind): RawBuilder<unknown> {
  const id = ID[kind]
  return sql`
    select ctid as place from ${TABLE[kind]} where user_id = g.user_id and ${id} >= g.id and ${id} <= g.id
     order by ${id} limit 1`
}

const release = (holder: string) => sql`
  delete from ${t.embeddingClaims} c using given g
   where c.user_id = g.user_id and c.id = g.id and c.holder = ${holder}::uuid`

/** Gives messages the embeddings of those that they are copies of, where these have one still. */
export async function copyEmbeddings(
  db: Db,
  rows: Claimed[],
  { model, holder }: Pick<StoreOptions, 'model' | 'holder'>,
): Promise<number> {
  const { rows: counts } = await sql<{ stored: number }>`
    /* embeddings.copy */
    with given as (
      select * from unnest(${textArray(rows.map(({ userId }) => userId))}::text[],
                           ${uuidArray(rows.map(({ id }) => id))}::uuid[],
                           ${uuidArray(rows.map(({ copyOf }) => copyOf))}::uuid[]) as g (user_id, id, copy_of)
    ), places as (
      select g.*, p.place, o.embedding, o.embedding_model from given g, lateral (${placeOf('message')}) p, lateral (
        select embedding, embedding_model from ${t.messages}
         where user_id = g.user_id and id >= g.copy_of and id <= g.copy_of order by id limit 1) o
    ), stored as (
      update ${t.messages} m set embedding = p.embedding, embedding_model = p.embedding_model
        from places p
       where m.ctid = p.place and p.embedding_model = ${model} and m.embedding_model is distinct from ${model}
      returning 1
    ), released as (${release(holder)})
    select count(*)::int as stored from stored`.execute(db)
  return counts[0]?.stored ?? 0
}

/** Keeps what this process has claimed for longer. */
export async function renewClaims(db: Db, holder: string, leaseMs: number): Promise<void> {
  await sql`
    /* embeddings.renew */
    update ${t.embeddingClaims} set until = now() + ${leaseMs}::float8 * interval '1 millisecond'
     where holder = ${holder}::uuid`.execute(db)
}

/** Lets others have what this process has claimed. */
export async function releaseClaims(db: Db, holder: string): Promise<void> {
  await sql`/* embeddings.release */ delete from ${t.embeddingClaims} where holder = ${holder}::uuid`.execute(
    db,
  )
}

/** Removes what processes left behind that ended long ago, and whose rows are gone. */
export async function sweepClaims(db: Db): Promise<void> {
  await sql`
    /* embeddings.sweep */
    delete from ${t.embeddingClaims} where until < now() - interval '1 hour'`.execute(db)
}

/** Whether any of a user's messages waits for its first embedding. */
export async function isWaiting(db: Db, userId: string, ids: string[]): Promise<boolean> {
  const { rows } = await sql<{ waits: boolean }>`
    /* embeddings.is_waiting */
    select exists (select from unnest(${uuidArray(ids)}::uuid[]) as g (id), lateral (
      select embedding_model from ${t.messages} where user_id = ${userId} and id >= g.id and id <= g.id
       order by id limit 1) m where m.embedding_model is null) as waits`.execute(db)
  return rows[0]?.waits === true
}
