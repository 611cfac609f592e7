import { type RawBuilder, sql } from 'kysely'
import { type Db, t } from '../../db/schema.ts'
import type { Tombstone } from '../schema.ts'
import { ERASED_TABLES, TABLES_OF_BYTES, USER_COLUMN } from './tables.ts'

type Table = (typeof ERASED_TABLES)[number]

type Row = { user_id: string; erased_at: Date; finished_at: Date | null }

const toTombstone = (row: Row): Tombstone => ({
  userId: row.user_id,
  erasedAt: row.erased_at,
  finishedAt: row.finished_at,
})

export async function findTombstone(db: Db, userId: string): Promise<Tombstone | undefined> {
  const { rows } = await sql<Row>`
    /* erase.tombstone */
    select user_id, erased_at, finished_at from ${t.erasedUsers} where user_id = ${userId}`.execute(db)
  return rows[0] && toTombstone(rows[0])
}

/** From its commit on nothing of the user is stored. One that is there stays, and is unfinished again. */
export async function insertTombstone(db: Db, userId: string): Promise<Tombstone> {
  const { rows } = await sql<Row>`
    /* erase.begin */
    insert into ${t.erasedUsers} as e (user_id) values (${userId})
    on conflict (user_id) do update set finished_at = null
    returning user_id, erased_at, finished_at`.execute(db)
  return toTombstone(rows[0] as Row)
}

/** Undefined when the user was readmitted meanwhile. */
export async function finishTombstone(db: Db, userId: string): Promise<Date | undefined> {
  const { rows } = await sql<{ finished_at: Date }>`
    /* erase.finish */
    update ${t.erasedUsers} set finished_at = now() where user_id = ${userId} returning finished_at`.execute(
    db,
  )
  return rows[0]?.finished_at
}

/** False when there was none that is finished. */
export async function deleteTombstone(db: Db, userId: string): Promise<boolean> {
  const { numAffectedRows } = await sql`
    /* erase.readmit */
    delete from ${t.erasedUsers} where user_id = ${userId} and finished_at is not null`.execute(db)
  return numAffectedRows === 1n
}

/** Nobody takes the tombstone away before the transaction ends. False when somebody has. */
export async function holdTombstone(tx: Db, userId: string): Promise<boolean> {
  const { rows } = await sql`
    /* erase.hold */
    select 1 from ${t.erasedUsers} where user_id = ${userId} for key share`.execute(tx)
  return rows.length > 0
}

/** Returns once every transaction has ended that stores something of the user and saw no tombstone. See migrations/0010. */
export async function awaitWriters(db: Db, userId: string): Promise<void> {
  await sql`
    /* erase.await_writers */
    select pg_advisory_xact_lock(hashtextextended(${userId}, 20101))`.execute(db)
}

/** Locks all superusers who are active, to the end of the transaction. @returns their ids, those left out who are being erased */
export async function lockSuperusers(tx: Db): Promise<string[]> {
  await sql`
    /* erase.lock_superusers */
    select from ${t.users} where is_superuser and is_active order by id for no key update`.execute(tx)
  // in a statement of its own: it sees the tombstone of whoever made the first one wait
  const { rows } = await sql<{ id: string }>`
    /* erase.superusers */
    select id from ${t.users} u where is_superuser and is_active
       and not exists (select from ${t.erasedUsers} e where e.user_id = u.id)`.execute(tx)
  return rows.map(({ id }) => id)
}

const userColumn = (name: string) =>
  sql.ref((USER_COLUMN as Record<string, string | undefined>)[name] ?? 'user_id')

type Part = RawBuilder<unknown>
const eachKey = ({ key }: Table, make: (name: string, type: string, i: number) => Part) =>
  sql.join(key.map(([name, type], i) => make(name, type, i)))

/** `last`: behind which the next ones are; undefined when there are none. */
export type Deleted = { found: number; last: string[] | undefined }

/**
 * Deletes the user's next rows behind `after`, in order of their key. A row that another one changes at this moment is
 * found and stays: the next round deletes it.
 */
export async function deleteRows(
  db: Db,
  table: Table,
  userId: string,
  { after, limit }: { after: string[] | undefined; limit: number },
): Promise<Deleted> {
  const { name, key } = table
  const columns = eachKey(table, (column) => sql.ref(column))
  const values = eachKey(table, (_, type, i) => sql`${after?.[i]}::text::${sql.raw(type)}`)
  const behind = after === undefined || key.length === 0 ? sql`` : sql`and (${columns}) > (${values})`
  const order = key.length === 0 ? sql`` : sql`order by ${columns}`
  const backwards = key.length === 0 ? sql`` : sql`order by ${eachKey(table, (c) => sql`${sql.ref(c)} desc`)}`
  const texts = eachKey(table, (column) => sql`${sql.ref(column)}::text`)
  const keyColumns = key.length === 0 ? sql`` : sql`, ${columns}`
  const { rows } = await sql<{ found: number; last: string[] }>`
    /* erase.rows */
    with batch as materialized (
      select ctid${keyColumns} from ${sql.table(name)}
       where ${userColumn(name)} = ${userId} ${behind} ${order} limit ${limit}::int
    ), gone as (
      delete from ${sql.table(name)} where ctid = any(array(select ctid from batch))
    )
    select (select count(*) from batch) as found, array[${texts}]::text[] as last from batch ${backwards} limit 1`.execute(
    db,
  )
  const found = Number(rows[0]?.found ?? 0)
  return { found, last: found < limit || key.length === 0 ? undefined : rows[0]?.last }
}

const ALL_TABLES = [...TABLES_OF_BYTES, ...ERASED_TABLES.map(({ name }) => name)]

/** How many rows each table has of the user. */
export async function countRows(db: Db, userId: string): Promise<Record<string, number>> {
  const counts = ALL_TABLES.map(
    (name) =>
      sql`select ${name}::text as name, count(*) as count from ${sql.table(name)} where ${userColumn(name)} = ${userId}`,
  )
  const { rows } = await sql<{ name: string; count: number }>`
    /* erase.count */ ${sql.join(counts, sql` union all `)}`.execute(db)
  return Object.fromEntries(rows.map(({ name, count }) => [name, Number(count)]))
}

/** Whether any table has a row of the user. */
export async function hasRows(db: Db, userId: string): Promise<boolean> {
  const tables = ALL_TABLES.map(
    (name) => sql`exists (select from ${sql.table(name)} where ${userColumn(name)} = ${userId})`,
  )
  const { rows } = await sql<{ any: boolean }>`
    /* erase.any */ select ${sql.join(tables, sql` or `)} as any`.execute(db)
  return rows[0]?.any === true
}
