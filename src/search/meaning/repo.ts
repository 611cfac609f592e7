import { type RawBuilder, sql } from 'kysely'
import { realArray } from '../../db/arrays.ts'
import { t } from '../../db/schema.ts'
import { DIMENSIONS } from '../../embeddings/embedder.ts'
import { analysisFilters, type Filters, inThreads, messageFilters, owned } from '../text/repo.ts'
import type { VectorSpace } from '../vectors/service.ts'

/** What is near in meaning, and how it is looked for. */
export type Meaning = {
  vector: Float32Array
  /** Vectors of another model are in another space. */
  model: string
  space: VectorSpace & { available: true }
  /** Up to how many messages are compared one by one, which is exact; the index is asked where there are more. */
  exactUpTo: number
  /** How many hits at least, of those below `after`. */
  depth: number
  after: HitKey | undefined
}

/** Below which hit a page begins. The score is text, which keeps every digit. */
export type HitKey = { score: string; at: Date; id: string }

/**
 * CTEs, of which `near` has the rows (type, thread_id, id, at, score) nearest in meaning. Which way is taken says the
 * number of messages that the filters leave. Where the index does not give enough of them, which may be since the user has
 * few among those of all, they are compared one by one after all.
 */
export function nearCtes(meaning: Meaning, filters: Filters): RawBuilder<unknown> {
  const { exactUpTo, space, depth } = meaning
  const all = messages(meaning, filters)
  const isIndexed = space.index !== 'none' && space.iterates
  const isMany = sql`(select n > ${exactUpTo}::bigint from amount)`
  const found = isIndexed
    ? sql`
      select * from by_index where (select count(*) from by_index) >= ${depth}::bigint
      union all
      select * from (${all}) x
       where not ${isMany} or (select count(*) from by_index) < ${depth}::bigint`
    : all
  const indexed = isIndexed
    ? sql`
    amount as materialized (${amount(meaning, filters)}),
    by_index as materialized (${nearestByIndex(meaning, filters, isMany)}),`
    : sql``
  return sql`${indexed}
    near as materialized (
      select n.type, n.thread_id, n.id, n.at, 1 - n.distance as score from (${found}
      union all
      ${inThreads(analyses(meaning, filters), filters)}) n)`
}

/** Who has more has a large enough share of the rows for the index to find enough. */
const COUNTED = 20_000

/** How many messages there are to be compared, counted no further than to what matters. */
function amount({ model, exactUpTo }: Meaning, filters: Filters): RawBuilder<unknown> {
  const { userId, threadId, kind, role, since, until } = filters
  const isFiltered = [threadId, kind, role, since, until].some((filter) => filter !== undefined)
  const counted = isFiltered
    ? sql`
      select from ${t.messages} m
       where m.user_id = ${userId} and m.embedding_model = ${model} and ${messageFilters('m', filters)}
         and ${isShown(filters)}`
    : // an index has all of it
      sql`select from ${t.messages} m where m.user_id = ${userId}`
  return sql`select count(*) as n from (${counted} limit ${Math.max(COUNTED, exactUpTo + 1)}::bigint) x`
}

const distance = (table: string, { vector, space }: Meaning) => {
  const schema = sql.id(space.schema)
  const wanted = sql`${realArray(vector)}::real[]::${schema}.vector(${sql.lit(DIMENSIONS)})`
  return sql`${sql.ref(`${table}.embedding`)} operator(${schema}.<=>) ${wanted}`
}

const messages = (meaning: Meaning, filters: Filters) => sql`
  select 'message' as type, m.thread_id, m.id, m.created_at as at, ${distance('m', meaning)} as distance
    from ${t.messages} m
   where m.user_id = ${filters.userId} and m.embedding_model = ${meaning.model} and m.embedding is not null
     and ${messageFilters('m', filters)} and ${isShown(filters)}`

/** Looked up in all of the user's threads, which are read once. */
const isShown = ({ userId, kind, includeArchived }: Filters) => sql`
  (m.thread_id in (
     select th.id from ${t.threads} th
      where th.user_id = ${userId} and (${includeArchived}::boolean or th.archived_at is null)
        and (${kind ?? null}::text is null or th.kind = ${kind ?? null}::text))) is true`

// a user has few of them, and there is no index
const analyses = (meaning: Meaning, filters: Filters) => sql`
  select 'analysis', a.session_id as thread_id, a.session_id, a.updated_at, ${distance('a', meaning)}
    from ${t.chainAnalysisResults} a
   where a.user_id = ${filters.userId} and a.embedding_model = ${meaning.model} and a.embedding is not null
     and ${analysisFilters('a', filters)}`

/**
 * The index gives rows of all users, nearest first, and goes on until there are enough of this one's. No other way leads
 * to the rows: the conditions on user and thread are written so that no index serves them.
 */
function nearestByIndex(
  meaning: Meaning,
  filters: Filters,
  isMany: RawBuilder<unknown>,
): RawBuilder<unknown> {
  return sql`
    select 'message' as type, m.thread_id, m.id, m.created_at as at, ${distance('m', meaning)} as distance
      from ${t.messages} m
     where ${owned('m', filters)} and m.embedding_model is not distinct from ${meaning.model}
       and ${messageFilters('m', filters)}
       and ${isShown(filters)}
       and ${isBelow(meaning)}
       and m.embedding is not null
       and (select ${isMany} ${askIndex(meaning, filters)})
     order by ${distance('m', meaning)} fetch first (${meaning.depth}::bigint) rows with ties`
}

/** Of the rows that are as near as the last of the page before, some were on it. */
function isBelow(meaning: Meaning): RawBuilder<unknown> {
  const { after } = meaning
  if (after === undefined) return sql`true`
  const score = sql`1 - (${distance('m', meaning)})`
  return sql`(${score} < ${after.score}::float8 or (${score} = ${after.score}::float8
          and (m.created_at, m.id) < (${after.at}::timestamptz, ${after.id}::uuid)))`
}

const [LEAST_CANDIDATES, MOST_CANDIDATES] = [100, 1_000]

/** Settings of the index for this statement, made before it is asked. */
function askIndex({ depth, space }: Meaning, { userId }: Filters): RawBuilder<unknown> {
  const set = (name: string, value: string) => sql`and set_config(${name}, ${value}, true) is not null`
  if (space.index === 'ivfflat') {
    return sql`${set('ivfflat.probes', String(space.probes))} ${set('ivfflat.iterative_scan', 'relaxed_order')}`
  }
  // what is walked towards at once should hold enough of the user's, twice: the rest is found worse
  const breadth = sql`
    select least(${MOST_CANDIDATES}::float8, greatest(${LEAST_CANDIDATES}::float8, ceil(
             2 * ${depth}::float8 * greatest(c.reltuples, 1) / greatest(n, 1))))::int::text
      from amount, pg_class c
     where c.oid = (select m.tableoid from ${t.messages} m where m.user_id = ${userId} limit 1)`
  return sql`and set_config('hnsw.ef_search', (${breadth}), true) is not null ${set('hnsw.iterative_scan', 'relaxed_order')}`
}
