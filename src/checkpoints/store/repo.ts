import { type RawBuilder, sql } from 'kysely'
import { doubleArray, intArray, realArray, textArray } from '../../db/arrays.ts'
import { type Db, t } from '../../db/schema.ts'
import type { Condition } from './filter.ts'
import type { Get, List, Range, Search } from './operations.ts'

export type ItemRow = {
  path: string
  key: string
  namespace: string[]
  /** For jsonb; null removes the item. */
  value: string | null
  words: string | null
  ttlS: number | null
  vectors: number[][]
}

/** A search, and what it is by: neither for the newest first, words, or a vector. */
export type Wanted = Search & { words?: string; vector?: number[] }

export type Found = {
  /** The place of the operation in the batch. */
  op: number
  namespace: string[]
  key: string
  value: Record<string, unknown>
  created_at: Date
  updated_at: Date
  score: number | null
}

/** What is put and removed, in one statement; each item at most once. */
export async function putItems(db: Db, userId: string, items: ItemRow[], dims: number): Promise<void> {
  const owners = items.flatMap(({ vectors }, i) => vectors.map(() => i + 1))
  const numbers = items.flatMap(({ vectors }) => vectors).flat()
  await sql`
    /* store.put */
    select ${t.putStoreItems}(
      ${userId}, ${textArray(items.map(({ path }) => path))}::text[], ${textArray(items.map(({ key }) => key))}::text[],
      ${textArray(items.map(({ namespace }) => JSON.stringify(namespace)))}::text[],
      ${textArray(items.map(({ value }) => value))}::text[], ${textArray(items.map(({ words }) => words))}::text[],
      ${doubleArray(items.map(({ ttlS }) => ttlS))}::float8[],
      ${intArray(owners)}::int[], ${dims}::int, ${realArray(numbers)}::real[])`.execute(db)
}

/** Those that are there, in one statement. */
export async function getItems(db: Db, userId: string, gets: Get[], refresh: boolean): Promise<Found[]> {
  const paths = textArray(gets.map(({ path }) => path))
  const keys = textArray(gets.map(({ key }) => key))
  const { rows } = await sql<Found>`
    /* store.get */
    with found as materialized (
      select i.op, s.*
        from unnest(${intArray(gets.map(({ at }) => at))}::int[], ${paths}::text[], ${keys}::text[]) i (op, path, key),
             lateral (
               select * from ${t.store} s
                where s.user_id = ${userId} and s.path = i.path and s.key = i.key and ${alive} limit 1) s
    )${refreshed(userId, refresh)}
    select op, namespace, key, value, created_at, updated_at, null::float8 as score from found`.execute(db)
  return rows
}

/** What all the searches find, in one statement; each finds its items in their order. */
export async function searchItems(
  db: Db,
  userId: string,
  branches: RawBuilder<unknown>[],
  refresh: boolean,
): Promise<(Found & { at: number; many: number | null })[]> {
  const { rows } = await sql<Found & { at: number; many: number | null }>`
    ${searchStatement(userId, branches, refresh)}`.execute(db)
  return rows.sort((a, b) => a.op - b.op || a.at - b.at)
}

/** The statement of {@link searchItems}, to be explained. */
export function searchStatement(userId: string, branches: RawBuilder<unknown>[], refresh: boolean) {
  return sql`
    /* store.search */
    with found as materialized (${sql.join(branches, sql` union all `)})${refreshed(userId, refresh)}
    select op, at, many, namespace, key, value, created_at, updated_at, score from found`
}

/** Of a search: the columns that every branch has. `many` is how many vectors were there to be compared. */
export const branchColumns = (op: number) =>
  sql`${op}::int as op, s.path, s.key, s.namespace, s.value, s.ttl_s, s.expires_at, s.created_at, s.updated_at`

/** The newest first. */
export function newest(userId: string, search: Search): RawBuilder<unknown> {
  const order = sql`s.updated_at desc, s.path, s.key`
  return sql`(
    select ${branchColumns(search.at)}, (row_number() over (order by ${order}))::int as at, null::int as many,
           null::float8 as score
      from ${t.store} s
     where s.user_id = ${userId} and ${within('s', search.range)} and ${alive} and ${matches(search.conditions)}
     order by ${order} limit ${search.limit} offset ${search.offset})`
}

/** Those with any of the words, the best first. */
export function byWords(userId: string, search: Search, words: string): RawBuilder<unknown> {
  const order = sql`s.score desc, s.updated_at desc, s.path, s.key`
  // any of them: plainto_tsquery would ask for all
  const query = sql`(
    select string_agg('''' || replace(replace(w.lexeme, '\\', '\\\\'), '''', '''''') || '''', ' | ')::tsquery
      from unnest(to_tsvector('simple'::regconfig, ${words})) w)`
  return sql`(
    select ${branchColumns(search.at)}, (row_number() over (order by ${order}))::int as at, null::int as many, s.score
      from (select s.*, ts_rank(s.words, q.query, 32)::float8 as score
              from (select ${query} as query) q, ${t.store} s
             where s.user_id = ${userId} and ${within('s', search.range)} and ${alive}
               and ${matches(search.conditions)} and s.words @@ q.query) s
     order by ${order} limit ${search.limit} offset ${search.offset})`
}

/** The namespaces that all the lists find, in one statement. */
export async function listNamespaces(
  db: Db,
  userId: string,
  lists: List[],
): Promise<{ op: number; namespace: string[] }[]> {
  const operations = lists.map(({ at, conditions, range: [from, below], maxDepth, limit, offset }) => ({
    op: at,
    ...{ conditions, from, below, depth: maxDepth, max: limit, skip: offset },
  }))
  const { rows } = await sql<{ op: number; namespace: string[] }>`
    /* store.namespaces */
    select o.op, n.namespace
      from json_to_recordset(${JSON.stringify(operations)}::json)
             as o (op int, conditions json, "from" text, below text, depth int, max int, skip int),
           lateral (
             select distinct s.namespace[1:coalesce(o.depth, cardinality(s.namespace))] as namespace
               from ${t.store} s
              where s.user_id = ${userId} and s.path >= o."from" and (o.below is null or s.path < o.below) and ${alive}
                and not exists (
                  select from json_to_recordset(o.conditions) as c (suffix boolean, path text[])
                   where cardinality(c.path) > cardinality(s.namespace)
                      or exists (
                        select from unnest(c.path) with ordinality p (label, i)
                         where p.label <> '*'
                           and p.label <> s.namespace[p.i::int + case when c.suffix
                                 then cardinality(s.namespace) - cardinality(c.path) else 0 end]))
              order by 1 limit o.max offset o.skip) n
     order by o.op, n.namespace`.execute(db)
  return rows
}

/** Removes the items of one namespace that have one of the keys, if there are any given, and match. @returns how many */
export async function deleteItems(
  db: Db,
  userId: string,
  path: string,
  { keys, conditions }: { keys: readonly string[] | undefined; conditions: Condition[] },
): Promise<number> {
  const named = keys === undefined ? sql`true` : sql`s.key = any (${textArray([...keys])}::text[])`
  const { numAffectedRows } = await sql`
    /* store.delete */
    delete from ${t.store} s
     where s.user_id = ${userId} and s.path = ${path} and ${named} and ${matches(conditions)}`.execute(db)
  return Number(numAffectedRows ?? 0n)
}

/** The vectors of items of one namespace, by key. */
export async function findVectors(
  db: Db,
  userId: string,
  path: string,
  keys: readonly string[],
): Promise<Map<string, number[]>> {
  const { rows } = await sql<{ key: string; embedding: number[] }>`
    /* store.vectors */
    select key, embedding::float8[] as embedding from ${t.storeVectors}
     where user_id = ${userId} and path = ${path} and key = any (${textArray([...keys])}::text[])`.execute(db)
  return new Map(rows.map(({ key, embedding }) => [key, embedding]))
}

/** Removes some of what has expired, whoever's it is. @returns how many */
export async function sweepExpired(db: Db, limit: number): Promise<number> {
  const { numAffectedRows } = await sql`
    /* store.sweep */
    delete from ${t.store} where ctid = any (array(
      select ctid from ${t.store} where expires_at <= now() order by expires_at limit ${limit} for update skip locked))
    `.execute(db)
  return Number(numAffectedRows ?? 0n)
}

export const alive = sql`(s.expires_at is null or s.expires_at > now())`

export function within(table: 's' | 'v', [from, below]: Range): RawBuilder<unknown> {
  const path = sql.ref(`${table}.path`)
  return below === undefined ? sql`true` : sql`${path} >= ${from} and ${path} < ${below}`
}

/** That all the conditions hold of `s.value`. */
export function matches(conditions: Condition[]): RawBuilder<unknown> {
  if (conditions.length === 0) return sql`true`
  return sql.join(conditions.map(matchesOne), sql` and `)
}

const COMPARISONS = { $gt: sql`>`, $gte: sql`>=`, $lt: sql`<`, $lte: sql`<=` }

function matchesOne({ field, under, operator, operand, type, text }: Condition): RawBuilder<unknown> {
  const whole = under === undefined ? sql`s.value` : sql`(s.value -> ${under}::text)`
  const value = sql`${whole} -> ${field}::text`
  switch (operator) {
    case 'absent':
      return sql`not ${whole} ? ${field}::text`
    case 'present':
      return sql`${whole} ? ${field}::text`
    case '$eq':
      return sql`${value} = ${operand}::jsonb`
    case '$ne':
      return sql`(${value}) is distinct from ${operand}::jsonb`
    case '$in':
      return sql`${value} in (select jsonb_array_elements(${operand}::jsonb))`
    case '$nin':
      return sql`(${value} in (select jsonb_array_elements(${operand}::jsonb))) is not true`
    default: {
      // texts by code point, whatever the order of the database; others as jsonb has them
      const sides =
        text === undefined
          ? sql`${value} ${COMPARISONS[operator]} ${operand}::jsonb`
          : sql`(${whole} ->> ${field}::text) collate "C" ${COMPARISONS[operator]} ${text}::text`
      return sql`jsonb_typeof(${value}) = ${type} and ${sides}`
    }
  }
}

/**
 * Lets what `found` has live on, unless that was done not long ago: within the last fiftieth of its time. What another
 * statement holds at the moment is left alone.
 */
function refreshed(userId: string, refresh: boolean): RawBuilder<unknown> {
  if (!refresh) return sql``
  const due = sql`s.expires_at < now() + s.ttl_s * 0.98 * interval '1 second'`
  return sql`, refreshed as (
      update ${t.store} r set expires_at = now() + r.ttl_s * interval '1 second'
        from (select distinct f.path, f.key from found f where f.expires_at is not null) f, lateral (
               select s.path, s.key from ${t.store} s
                where s.user_id = ${userId} and s.path = f.path and s.key = f.key and ${due}
                limit 1 for update skip locked) s
       where r.user_id = ${userId} and r.path = s.path and r.key = s.key
    )`
}
