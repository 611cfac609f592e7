import { type RawBuilder, sql } from 'kysely'
import { run } from '../../db/migrate.ts'
import { quoteIdentifier } from '../../db/migrations.ts'
import { type Db, t } from '../../db/schema.ts'
import { type Extension, lockVectors } from '../../db/vector-extension.ts'
import { DIMENSIONS } from '../../embeddings/embedder.ts'

/** How vectors are found: by the graph of HNSW or the lists of IVFFlat. */
export type IndexType = 'hnsw' | 'ivfflat'

/** What there is for vectors. */
export type SpaceRow = {
  /** Of the extension; null, as its version, without. */
  schema: string | null
  version: string | null
  /** The types of the columns `embedding`, by table; only those that are there. */
  columns: Record<string, string>
  /** The method of the index on messages that can be used; null without one. */
  method: IndexType | null
  /** Of the index; null for what it was made without. */
  lists: number | null
  /** An index is there that cannot be used: its making failed or is under way. */
  unfinished: boolean
}

/** The tables with a column `embedding`. */
export const TABLES = ['messages', 'chain_analysis_results'] as const
/** Results of sessions are few for each user: they need no index. */
export const INDEX = 'messages_by_embedding'
/** An index that is to take the place of another while that one is in use. */
export const NEXT_INDEX = 'messages_by_embedding_next'

export async function readSpace(db: Db, schema: string): Promise<SpaceRow> {
  const { rows } = await sql<SpaceRow>`
    /* vectors.space */
    with ours as (
      select c.oid, c.relname, c.reloptions, c.relam from pg_class c join pg_namespace n on n.oid = c.relnamespace
       where n.nspname = ${schema}
         and c.relname in ('messages', 'chain_analysis_results', ${sql.lit(INDEX)}, ${sql.lit(NEXT_INDEX)})
    ), index as (
      select o.relname, i.indisvalid, a.amname, (select option_value::int from pg_options_to_table(o.reloptions)
                                                  where option_name = 'lists') as lists
        from ours o join pg_index i on i.indexrelid = o.oid join pg_am a on a.oid = o.relam
    )
    select n.nspname::text as schema, e.extversion as version,
           (select coalesce(jsonb_object_agg(o.relname, format_type(a.atttypid, a.atttypmod)), '{}')
              from ours o join pg_attribute a on a.attrelid = o.oid and a.attname = 'embedding' and not a.attisdropped
           ) as columns,
           (select amname::text from index where relname = ${sql.lit(INDEX)} and indisvalid) as method,
           (select lists from index where relname = ${sql.lit(INDEX)} and indisvalid) as lists,
           exists (select from index where not indisvalid) as unfinished
      from (select 1) one
      left join pg_extension e on e.extname = 'vector'
      left join pg_namespace n on n.oid = e.extnamespace`.execute(db)
  const [row] = rows
  if (row === undefined) throw new Error('the catalog gave no answer')
  return row
}

/** Whether a column's type, as the catalog prints it, is that of our vectors: with or without the name of its schema. */
export const isOurType = (type: string | undefined): boolean =>
  type !== undefined && new RegExp(`(^|\\.)vector\\(${DIMENSIONS}\\)$`).test(type)

/** Whether a role may name what is in a schema. */
export async function maySee(db: Db, role: string, schema: string): Promise<boolean> {
  const { rows } = await sql<{ may: boolean }>`
    /* vectors.may_see */ select has_schema_privilege(${role}, ${schema}, 'usage') as may`.execute(db)
  return rows[0]?.may === true
}

export const usageStatement = (role: string, schema: string): string =>
  `grant usage on schema ${quoteIdentifier(schema)} to ${quoteIdentifier(role)}`

/** The statement that adds the column; the rows are not written again for it. */
export function columnStatement(schema: string, table: string, extension: Extension): string {
  const type = `${quoteIdentifier(extension.schema)}.vector(${DIMENSIONS})`
  return `alter table ${quoteIdentifier(schema)}.${table} add column if not exists embedding ${type}`
}

// what waits for the lock of a table keeps everybody else waiting behind it
const LOCK_TIMEOUT = '2s'

/** Runs statements one process at a time, or fails soon where others hold the tables. */
export async function changeTables(tx: Db, schema: string, statements: string[]): Promise<void> {
  await lockVectors(tx, `columns ${schema}`)
  await run(tx, `set local lock_timeout = '${LOCK_TIMEOUT}'`)
  for (const statement of statements) await run(tx, statement)
}

/** Writes down that the embeddings which rows say they have are gone, with the column that is added again. */
export async function noteLost(tx: Db): Promise<void> {
  const next = (table: RawBuilder<unknown>, after: RawBuilder<unknown>) => sql`
    select embedding_model as model from ${table} where embedding_model > ${after} order by embedding_model limit 1`
  for (const table of [t.messages, t.chainAnalysisResults])
    await sql`
      /* vectors.note_lost */
      with recursive models as (
        (${next(table, sql`''`)}) union all select n.model from models m, lateral (${next(table, sql`m.model`)}) n)
      insert into ${t.embeddingModels} (model, chosen_at, lost) select model, 'epoch', true from models
      on conflict (model) do update set lost = true`.execute(tx)
}

export type IndexOptions = {
  type: IndexType
  /** Of IVFFlat. */
  lists?: number
  /** Not to keep writers waiting; outside a transaction only. */
  concurrently?: boolean
  name?: string
}

/** The statement that makes the index on messages. */
export function indexStatement(schema: string, extension: Extension, options: IndexOptions): string {
  const { type, lists, concurrently = false, name = INDEX } = options
  const operators = `${quoteIdentifier(extension.schema)}.vector_cosine_ops`
  const settings = type === 'ivfflat' && lists !== undefined ? ` with (lists = ${lists})` : ''
  const how = concurrently ? 'concurrently ' : ''
  return `create index ${how}if not exists ${name} on ${quoteIdentifier(schema)}.messages using ${type} (embedding ${operators})${settings}`
}

export type TableSize = {
  /** How many messages a model has come to, counted up to a limit. */
  embedded: number
  /** Of the table alone, without what is kept beside it. */
  bytes: number
}

/** @param limit above which nothing is counted any more */
export async function measureMessages(db: Db, schema: string, limit: number): Promise<TableSize> {
  // in the order of the index, which ends with what has no model
  const { rows } = await sql<TableSize>`
    /* vectors.size */
    select (select count(*)::int from (select from ${t.messages} where embedding_model is not null
                                        order by embedding_model, id limit ${limit}) m) as embedded,
           (select pg_relation_size(c.oid)::float8 from pg_class c join pg_namespace n on n.oid = c.relnamespace
             where n.nspname = ${schema} and c.relname = 'messages') as bytes`.execute(db)
  return rows[0] ?? { embedded: 0, bytes: 0 }
}

export async function countVectors(db: Db): Promise<number> {
  const { rows } = await sql<{ vectors: number }>`
    /* migrate.count_vectors */ select count(embedding)::int as vectors from ${t.messages}`.execute(db)
  return rows[0]?.vectors ?? 0
}

const buildKey = (schema: string) => `threadbase index of embeddings ${schema}`

/** Makes a session ready for {@link createNextIndex}. @returns its process; undefined while another one is at it */
export async function beginBuild(
  session: Db,
  schema: string,
  memoryMb: number | undefined,
): Promise<number | undefined> {
  const { rows } = await sql<{ pid: number; locked: boolean }>`
    /* vectors.begin_build */
    select pg_backend_pid() as pid, pg_try_advisory_lock(hashtext(${buildKey(schema)})) as locked`.execute(
    session,
  )
  const [row] = rows
  if (row?.locked !== true) return undefined
  if (memoryMb !== undefined) await run(session, `set maintenance_work_mem = '${memoryMb}MB'`)
  return row.pid
}

export async function endBuild(session: Db, schema: string): Promise<void> {
  await run(session, 'reset maintenance_work_mem')
  await sql`/* vectors.end_build */ select pg_advisory_unlock(hashtext(${buildKey(schema)}))`.execute(session)
}

/** In a session of its own: what is made concurrently is no part of a transaction. */
export async function createNextIndex(
  session: Db,
  schema: string,
  extension: Extension,
  options: Pick<IndexOptions, 'type' | 'lists'>,
): Promise<void> {
  await run(session, indexStatement(schema, extension, { ...options, concurrently: true, name: NEXT_INDEX }))
}

/** Nothing where there is none. */
export async function dropIndex(session: Db, schema: string, name: string): Promise<void> {
  await run(session, `drop index concurrently if exists ${quoteIdentifier(schema)}.${name}`)
}

/** The index that was made takes the place of the other, at once. Fails soon where others hold the table. */
export async function swapIndexes(session: Db, schema: string): Promise<void> {
  const ours = quoteIdentifier(schema)
  await session.transaction().execute(async (tx) => {
    await run(tx, `set local lock_timeout = '${LOCK_TIMEOUT}'`)
    await run(tx, `drop index if exists ${ours}.${INDEX}`)
    await run(tx, `alter index ${ours}.${NEXT_INDEX} rename to ${INDEX}`)
  })
}

export async function cancelStatement(db: Db, pid: number): Promise<void> {
  await sql`/* vectors.cancel */ select pg_cancel_backend(${pid}::int)`.execute(db)
}

/** How far a session is with its index; undefined when it makes none. */
export async function readProgress(
  db: Db,
  pid: number,
): Promise<{ phase: string; share: number } | undefined> {
  const { rows } = await sql<{ phase: string; share: number }>`
    /* vectors.progress */
    select phase, coalesce(blocks_done::float8 / nullif(blocks_total, 0), tuples_done::float8 / nullif(tuples_total, 0), 0)
                    as share
      from pg_stat_progress_create_index where pid = ${pid}::int`.execute(db)
  return rows[0]
}
