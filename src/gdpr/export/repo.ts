import { type RawBuilder, sql } from 'kysely'
import { uuidArray } from '../../db/arrays.ts'
import { type Db, t } from '../../db/schema.ts'
import type { ExportedTable } from './tables.ts'

export type ExportedRow = Record<string, unknown>

type Part = RawBuilder<unknown>

const MAX_ROWS = 1_000
// as they count below, which nothing has to be read for
const MAX_BYTES = 4_000_000
// What is compressed is stored in as little as a hundredth of its length, which cannot be asked for. It counts as more
// than ordinary texts are, so that a page of what is all the same stays small enough, too.
const COMPRESSED = 25

export type RowPage = { rows: ExportedRow[]; last: string[] | undefined }

const sizeOf = (column: string) =>
  `coalesce(pg_column_size(${column}), 0)::bigint * case when pg_column_compression(${column}) is null then 1 else ${COMPRESSED} end`

/** The user's next rows behind `after`, in order of their key: as many as fit, one at least where there is one. */
export async function readRows(
  db: Db,
  { table, key, columns, large = [] }: ExportedTable,
  userId: string,
  after: string[] | undefined,
): Promise<RowPage> {
  const eachKey = (make: (name: string, type: string, i: number) => Part) =>
    sql.join(key.map(([name, type], i) => make(name, type, i)))
  const keys = eachKey((name) => sql.ref(name))
  const behind =
    after === undefined || key.length === 0
      ? sql``
      : sql`and (${keys}) > (${eachKey((_, type, i) => sql`${after[i]}::text::${sql.raw(type)}`)})`
  const order = key.length === 0 ? sql`` : sql`order by ${keys}`
  const bytes = sql.join(
    ['0', ...large.map(sizeOf)].map((text) => sql.raw(text)),
    sql` + `,
  )
  const last = sql`array[${eachKey((name) => sql`${sql.ref(name)}::text`)}]::text[]`
  const wanted = sql.join(columns.map((name) => sql.ref(name)))
  const { rows } = await sql<ExportedRow & { export_key: string[] }>`
    /* export.rows */
    select ${wanted}, ${last} as export_key from (
      select x.*, sum(${bytes}) over (${order} rows unbounded preceding) - (${bytes}) as before
        from (select * from ${sql.table(table)} where user_id = ${userId} ${behind} ${order} limit ${MAX_ROWS}::int) x
    ) y where before < ${MAX_BYTES}::bigint ${order}`.execute(db)
  const end = rows.at(-1)?.export_key
  for (const row of rows) delete (row as Partial<typeof row>).export_key
  return { rows, last: key.length === 0 ? undefined : end }
}

/** The user's account; undefined for users without one. */
export async function readAccount(db: Db, userId: string): Promise<ExportedRow | undefined> {
  const { rows } = await sql<ExportedRow>`
    /* export.account */
    select id, provider, username, email, name, profile_image, password_hash is not null as has_password, is_active,
           is_superuser, created_at, updated_at, last_login_at
      from ${t.users} where id = ${userId}`.execute(db)
  return rows[0]
}

export type NamedBytes = { id: string; sha256: string; size: number; mime: string; name: string }

/** What rows of these ids name, without those that are gone. */
export async function findNamed(
  db: Db,
  table: 'artifacts' | 'files',
  userId: string,
  ids: string[],
): Promise<NamedBytes[]> {
  const name = sql.ref(table === 'files' ? 'name' : 'filename')
  const { rows } = await sql<NamedBytes>`
    /* export.named */
    select id, sha256, size, mime, ${name} as name from ${sql.table(table)}
     where user_id = ${userId} and id = any(${uuidArray(ids)}::uuid[])`.execute(db)
  return rows
}
