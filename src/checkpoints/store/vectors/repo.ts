import { type RawBuilder, sql } from 'kysely'
import { realArray } from '../../../db/arrays.ts'
import { run } from '../../../db/migrate.ts'
import { quoteIdentifier } from '../../../db/migrations.ts'
import { type Db, t } from '../../../db/schema.ts'
import { type Extension, isAtLeast, iterates, lockVectors } from '../../../db/vector-extension.ts'
import type { Search } from '../operations.ts'
import { alive, branchColumns, matches, within } from '../repo.ts'

/** How vectors of one length are compared. */
export type Space = {
  dims: number
  /** Undefined: there is none, and numbers are compared in plain SQL. */
  extension: Extension | undefined
  /** Above how many candidates the index is asked; infinite without one. */
  exactUpTo: number
}

/** Beyond this many dimensions there is no index; beyond the first limit it is one over half-precision numbers. */
const MAX_VECTOR = 2_000
const MAX_HALFVEC = 4_000
const HALFVEC_SINCE = '0.7'
/** Whether vectors of this length can have an index that finds all that a filter leaves. */
export function canHaveIndex(dims: number, extension: Extension): boolean {
  return (
    iterates(extension) && dims <= (isAtLeast(extension.version, HALFVEC_SINCE) ? MAX_HALFVEC : MAX_VECTOR)
  )
}

export const indexName = (dims: number) => `store_vectors_nearest_${dims}`

export async function hasIndex(db: Db, schema: string, dims: number): Promise<boolean> {
  const { rows } = await sql`
    /* store.has_index */
    select from pg_class c join pg_namespace n on n.oid = c.relnamespace
     where n.nspname = ${schema} and c.relname = ${indexName(dims)} and c.relkind in ('i', 'I')`.execute(db)
  return rows.length > 0
}

/** The statement that makes the index. Writes to the table wait until it is done. */
export function indexStatement(schema: string, dims: number, extension: Extension): string {
  const ours = quoteIdentifier(schema)
  const theirs = quoteIdentifier(extension.schema)
  const type = typeName(dims)
  return `create index if not exists ${indexName(dims)} on ${ours}.store_vectors
    using hnsw ((embedding::${theirs}.${type}(${dims})) ${theirs}.${type}_cosine_ops) where dims = ${dims}`
}

export async function createIndex(tx: Db, schema: string, dims: number, extension: Extension): Promise<void> {
  await lockVectors(tx, `index ${schema} ${dims}`)
  await run(tx, indexStatement(schema, dims, extension))
}

const typeName = (dims: number) => (dims <= MAX_VECTOR ? 'vector' : 'halfvec')

/** Candidates of an index, which has a vector for each text of an item. */
const candidates = ({ limit, offset }: Search) => 2 * (limit + offset) + 20

/**
 * The items whose texts are nearest to a vector. Few candidates are compared one by one, which is exact. For many the
 * index is asked, and `many` says how many there were at least: it may find too few of them.
 */
export function nearest(userId: string, search: Search, vector: number[], space: Space): RawBuilder<unknown> {
  const { exactUpTo } = space
  const distance = distanceTo(vector, space)
  const all = sql`
    select v.path, v.key, ${distance} as distance
      from ${t.storeVectors} v join ${t.store} s on s.user_id = v.user_id and s.path = v.path and s.key = v.key
     where v.user_id = ${userId} and s.user_id = ${userId} and v.dims = ${sql.lit(space.dims)}
       and ${within('v', search.range)} and ${alive} and ${matches(search.conditions)}`
  const near = Number.isFinite(exactUpTo)
    ? sql`with few as materialized (${all} limit ${exactUpTo + 1}::bigint), near as (
            select * from few where (select count(*) from few) <= ${exactUpTo}::bigint
            union all
            (${all} and (select count(*) > ${exactUpTo}::bigint ${askIndex(search)} from few)
              order by 3 limit ${candidates(search)}::bigint))`
    : sql`with few as materialized (${all}), near as (select * from few)`
  return sql`(${near}
    select ${branchColumns(search.at)}, (row_number() over (order by n.distance, n.path, n.key))::int as at,
           m.many, 1 - n.distance as score
      from (select count(*)::int as many from few) m
      left join (select path, key, min(distance) as distance from near group by path, key
                  order by 3, 1, 2 limit ${search.limit} offset ${search.offset}) n on true
      left join ${t.store} s on s.user_id = ${userId} and s.path = n.path and s.key = n.key)`
}

/** Settings of the index for this statement, made before it is asked. */
const askIndex = (search: Search) => {
  const breadth = String(Math.min(1_000, Math.max(100, candidates(search))))
  return sql`and set_config('hnsw.iterative_scan', 'strict_order', true) is not null
             and set_config('hnsw.ef_search', ${breadth}, true) is not null`
}

function distanceTo(vector: number[], { dims, extension }: Space): RawBuilder<unknown> {
  const numbers = sql`${realArray(vector)}::real[]`
  if (extension === undefined) return sql`${t.storeDistance}(v.embedding, ${numbers})`
  const schema = sql.id(extension.schema)
  // beyond what an index takes, vectors are compared as they are
  const type = sql`${schema}.${sql.id(dims > MAX_HALFVEC ? 'vector' : typeName(dims))}(${sql.lit(dims)})`
  return sql`v.embedding::${type} operator(${schema}.<=>) ${numbers}::${type}`
}
