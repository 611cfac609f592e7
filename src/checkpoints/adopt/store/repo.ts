import { sql } from 'kysely'
import { type Db, t } from '../../../db/schema.ts'

export type Place = { path: string; key: string }
export type Taken = { read: number; taken: number; refused: number; last: Place | undefined }

export async function countItems(db: Db, schema: string): Promise<number> {
  const { rows } = await sql<{ n: string }>`
    /* adopt.count_items */ select count(*)::text as n from ${sql.id(schema, 'store')}`.execute(db)
  return Number(rows[0]?.n)
}

/**
 * Takes the next items of a stock store, as put_store_items of migrations/0006_store.sql would: those that are not here, and those
 * that were put there later than here. Vectors are not taken: they are of another form. What expired is left.
 */
export async function takeItems(
  db: Db,
  schema: string,
  userId: string,
  after: Place,
  limit: number,
): Promise<Taken> {
  // labels end with U+0001, which is escaped with U+0002, as is that; U+FFFF is the mark of core/json.ts
  const { rows } = await sql<Omit<Taken, 'last'> & Place>`
    /* adopt.take_items */
    with page as materialized (
      select * from ${sql.id(schema, 'store')}
       where (namespace_path, key) > (${after.path}, ${after.key}) order by namespace_path, key limit ${limit}
    ), item as (
      select p.*, string_to_array(p.namespace_path, ':') as labels,
             replace(replace(replace(p.namespace_path, chr(2), chr(2) || chr(2)), chr(1), chr(2) || chr(1)), ':', chr(1)) || chr(1) as path
        from page p where p.expires_at is null or p.expires_at > now()
    ), fit as (
      select * from item
       where '' <> all (labels) and jsonb_typeof(value) = 'object' and key <> ''
         and octet_length(${userId}::text) + octet_length(path) + octet_length(key) <= 2400
    ), taken as (
      insert into ${t.store} as o (user_id, path, key, namespace, value, words, ttl_s, expires_at, created_at, updated_at)
      select ${userId}, path, key, labels, replace(value::text, chr(65535), chr(65535) || 'ffff')::jsonb,
             case when octet_length(value::text) <= 200000
                  then jsonb_to_tsvector('simple'::regconfig, value, '["string", "numeric"]') end,
             case when expires_at is not null then greatest(extract(epoch from expires_at - coalesce(updated_at, now())), 1) end,
             expires_at,
             coalesce(created_at, now()), coalesce(updated_at, now())
        from fit
       order by path collate "C", key collate "C"
          on conflict (user_id, path, key) do update
             set value = excluded.value, words = excluded.words, ttl_s = excluded.ttl_s, expires_at = excluded.expires_at,
                 created_at = excluded.created_at, updated_at = excluded.updated_at
           where excluded.updated_at > o.updated_at
      returning o.path, o.key
    ), outdated as (
      delete from ${t.storeVectors} v using taken where v.user_id = ${userId} and v.path = taken.path and v.key = taken.key
    )
    select (select count(*) from page)::int as read, (select count(*) from taken)::int as taken,
           ((select count(*) from item) - (select count(*) from fit))::int as refused, last.path, last.key
      from (select namespace_path as path, key from page order by namespace_path desc, key desc limit 1) last`.execute(
    db,
  )
  const [row] = rows
  if (row === undefined) return { read: 0, taken: 0, refused: 0, last: undefined }
  const { path, key, ...counts } = row
  return { ...counts, last: { path, key } }
}
