import { type Kysely, type RawBuilder, sql } from 'kysely'
import { byteaArray, textArray } from './arrays.ts'
import type { Db, Schema } from './schema.ts'

/** A table with a column that is encrypted and one, key_id, that names the key: what a change of keys needs to know. */
export type EncryptedTable = {
  readonly name: keyof Schema
  /** The columns of the primary key, in its order. */
  readonly key: readonly (readonly [name: string, type: 'text' | 'uuid' | 'integer'])[]
  readonly value: readonly [name: string, type: 'text' | 'bytea']
  /** `any`: whatever key a row names, or if it names none, each may open it. `named`: that key alone; without one it is plain. */
  readonly opens: 'any' | 'named'
  /** The row's value under the first key, or why there is none. */
  reencrypt(row: EncryptedRow): { value: string | Buffer } | { problem: RowProblem }
}

/** Why a row cannot be encrypted anew: none of the keys opens it; its key does not open it; it is nothing encrypted. */
export type RowProblem = 'missing key' | 'changed' | 'malformed'

export type EncryptedRow = {
  /** As text, in the order of the key's columns. */
  key: string[]
  keyId: string | null
  value: string | Buffer
}

export type KeyCount = { keyId: string | null; rows: number }

/** How many rows each key has; null: those that name none and are encrypted. */
export async function countByKey(db: Db, table: EncryptedTable): Promise<KeyCount[]> {
  const { rows } = await sql<KeyCount>`
    /* keys.count */
    select key_id as "keyId", count(*) as rows from ${sql.table(table.name)}
     ${table.opens === 'named' ? sql`where key_id is not null` : sql``} group by 1 order by 1`.execute(db)
  return rows
}

export type Batch = {
  /** Rows that are, or in a dry run would be, under the first key now. */
  done: number
  refused: { key: string[]; keyId: string | null; problem: RowProblem }[]
  /** Where the next batch begins; undefined at the end of the table. */
  next: string[] | undefined
}

export type BatchOptions = {
  /** The ids of the keys, the first first. */
  keyIds: readonly [string, ...string[]]
  /** The last key of the batch before. */
  after: string[] | undefined
  /** Rows at most; fewer when they are large. */
  limit: number
  dryRun: boolean
}

// what is read, decrypted and sent back is in memory at once
const MAX_BYTES = 8_000_000

/**
 * Encrypts the next rows, in order of their key, that are not under the first key. They are locked from when they are
 * read until they are written, so that what another writes meanwhile comes before or after and is not lost; rows that
 * another has locked are left out. One short transaction.
 */
export async function reencryptBatch(
  db: Kysely<Schema>,
  table: EncryptedTable,
  options: BatchOptions,
): Promise<Batch> {
  return db
    .transaction()
    .setIsolationLevel('read committed')
    .execute(async (tx) => {
      await sql`/* keys.plan */
        select set_config('enable_seqscan', 'off', true), set_config('enable_hashjoin', 'off', true),
               set_config('enable_mergejoin', 'off', true), set_config('jit', 'off', true)`.execute(tx)
      const found = await findRows(tx, table, options)
      const chosen = found.slice(0, countWithin(found, MAX_BYTES))
      const isLast = found.length < options.limit && chosen.length === found.length
      const next = isLast ? undefined : chosen.at(-1)?.key
      if (chosen.length === 0) return { done: 0, refused: [], next }
      // in a statement of its own: it sees what was committed before the rows were locked
      const keys = chosen.map(({ key }) => key)
      const written: EncryptedRow[] = []
      const refused: Batch['refused'] = []
      for (const row of await readRows(tx, table, keys)) {
        const result = table.reencrypt(row)
        if ('value' in result) written.push({ ...row, ...result })
        else refused.push({ key: row.key, keyId: row.keyId, ...result })
      }
      if (!options.dryRun && written.length > 0) await writeRows(tx, table, options.keyIds[0], written)
      return { done: written.length, refused, next }
    })
}

type Found = { key: string[]; bytes: number }

async function findRows(tx: Db, table: EncryptedTable, options: BatchOptions): Promise<Found[]> {
  const { keyIds, after, limit, dryRun } = options
  const [first, ...others] = keyIds
  const wanted =
    table.opens === 'any'
      ? sql`key_id is distinct from ${first}`
      : sql`key_id = any (${textArray(others)}::text[]) and key_id <> ${first}`
  const behind = after === undefined ? sql`` : sql`and (${columnsOf(table)}) > (${literals(table, after)})`
  const { rows } = await sql<Found>`
    /* keys.find */
    select ${keyAsText(table)} as key, octet_length(${sql.ref(table.value[0])}) as bytes from ${sql.table(table.name)}
     where ${wanted} ${behind}
     order by ${columnsOf(table)} limit ${limit}::int ${dryRun ? sql`` : sql`for update skip locked`}`.execute(
    tx,
  )
  return rows
}

/** How many of the first rows have so many bytes together; one at least. */
function countWithin(rows: Found[], limit: number): number {
  let bytes = 0
  const end = rows.findIndex((row, i) => {
    bytes += row.bytes
    return i > 0 && bytes > limit
  })
  return end === -1 ? rows.length : end
}

async function readRows(tx: Db, table: EncryptedTable, keys: string[][]): Promise<EncryptedRow[]> {
  const { rows } = await sql<EncryptedRow>`
    /* keys.read */
    select ${keyAsText(table)} as key, r.key_id as "keyId", r.${sql.ref(table.value[0])} as value
      from unnest(${keyArrays(table, keys)}) as u (${names(table)}), ${sql.table(table.name)} r
     where ${sameKey(table)}`.execute(tx)
  return rows
}

async function writeRows(tx: Db, table: EncryptedTable, keyId: string, rows: EncryptedRow[]): Promise<void> {
  const [column, type] = table.value
  const values = rows.map(({ value }) => value)
  const array =
    type === 'text'
      ? sql`${textArray(values as string[])}::text[]`
      : sql`${byteaArray(values as Buffer[])}::bytea[]`
  const keys = rows.map(({ key }) => key)
  await sql`
    /* keys.write */
    update ${sql.table(table.name)} r set ${sql.ref(column)} = u.value, key_id = ${keyId}
      from unnest(${keyArrays(table, keys)}, ${array}) as u (${names(table)}, value)
     where ${sameKey(table)}`.execute(tx)
}

type Part = RawBuilder<unknown>

const each = ({ key }: EncryptedTable, make: (name: string, type: string, i: number) => Part, by = sql`, `) =>
  sql.join(
    key.map(([name, type], i) => make(name, type, i)),
    by,
  )
const columnsOf = (table: EncryptedTable) => each(table, (name) => sql.ref(name))
const names = (table: EncryptedTable) => each(table, (_, _type, i) => sql.id(`k${i}`))
const keyAsText = (table: EncryptedTable) => sql`array[${each(table, (name) => sql`${sql.ref(name)}::text`)}]`
const literals = (table: EncryptedTable, key: string[]) =>
  each(table, (_, type, i) => sql`${key[i]}::text::${sql.raw(type)}`)
const keyArrays = (table: EncryptedTable, keys: string[][]) =>
  each(table, (_, _type, i) => sql`${textArray(keys.map((key) => key[i] as string))}::text[]`)
const sameKey = (table: EncryptedTable) =>
  each(table, (name, type, i) => sql`r.${sql.id(name)} = u.${sql.id(`k${i}`)}::${sql.raw(type)}`, sql` and `)
