import { type Kysely, sql } from 'kysely'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { engines, type TestDatabase } from '../../../test/harness.ts'
import { storeEverything, TEST_VECTORS } from '../../../test/user-rows.ts'
import type { Schema } from '../../db/schema.ts'
import { ERASED_TABLES, KEPT_TABLES, TABLES_OF_BYTES } from './tables.ts'

const ROOT = { userId: 'root', via: 'library' } as const

/** The tables that have rows of users, with the column that says of whom, as the catalog has them. */
async function findUserTables(db: Kysely<Schema>, schema: string): Promise<Map<string, string>> {
  const { rows } = await sql<{ name: string; column: string }>`
    select c.relname::text as name, a.attname::text as column
      from pg_class c join pg_namespace n on n.oid = c.relnamespace
      join pg_attribute a on a.attrelid = c.oid and not a.attisdropped
     where n.nspname = ${schema} and c.relkind in ('r', 'p')
       and (a.attname = 'user_id' or (c.relname = 'users' and a.attname = 'id'))`.execute(db)
  return new Map(rows.map(({ name, column }) => [name, column]))
}

/** All rows of a user as text, by table. */
async function dump(db: Kysely<Schema>, schema: string, userId: string): Promise<Map<string, string[]>> {
  const found = new Map<string, string[]>()
  for (const [name, column] of await findUserTables(db, schema)) {
    const { rows } = await sql<{ row: string }>`
      select x::text as row from ${sql.table(`${schema}.${name}`)} x where ${sql.ref(column)} = ${userId} order by 1`.execute(
      db,
    )
    found.set(
      name,
      rows.map(({ row }) => row),
    )
  }
  return found
}

/** Tables with rows of an erased user that are to have none. */
async function findForgotten(db: Kysely<Schema>, schema: string, userId: string): Promise<string[]> {
  const rows = await dump(db, schema, userId)
  return [...rows].flatMap(([name, of]) =>
    of.length > 0 && !(KEPT_TABLES as readonly string[]).includes(name) ? [name] : [],
  )
}

for (const engine of engines) {
  describe.skipIf(!engine.available)(`what is erased, by the catalog, on ${engine.name}`, () => {
    let opened: TestDatabase
    let db: Kysely<Schema>
    let s: string
    beforeAll(async () => {
      opened = await engine.open({ store: TEST_VECTORS })
      db = opened.database.db
      s = opened.database.schema
    })
    afterAll(() => opened?.close())

    test('every table with rows of users is erased or is kept on purpose', async () => {
      const named: string[] = [...ERASED_TABLES.map(({ name }) => name), ...TABLES_OF_BYTES, ...KEPT_TABLES]
      expect(named.toSorted()).toEqual([...(await findUserTables(db, s)).keys()].toSorted())
      expect(new Set(named).size).toBe(named.length)
    })

    test('no row of the user is left in any table, and every row of another stays', async () => {
      for (const userId of ['anna', 'berta']) await storeEverything(opened, userId)
      const before = await dump(db, s, 'anna')
      const others = await dump(db, s, 'berta')
      // the fillers reach every table: a table that they forget would be empty here
      for (const [name, rows] of before)
        if (name !== 'erased_users') expect(rows.length, name).toBeGreaterThan(0)
      const report = await opened.tb.gdpr.erase({ userId: 'anna' }, ROOT)
      const counted = Object.fromEntries(
        [...before].flatMap(([name, rows]) =>
          KEPT_TABLES.includes(name as keyof Schema) || rows.length === 0 ? [] : [[name, rows.length]],
        ),
      )
      expect(report.rows).toEqual(counted)
      expect(await findForgotten(db, s, 'anna')).toEqual([])
      expect(await dump(db, s, 'berta')).toEqual(others)
      const kept = await dump(db, s, 'anna')
      expect(kept.get('erased_users')).toHaveLength(1)
      // what was written down stays as it was
      for (const line of before.get('audit_log') ?? []) expect(kept.get('audit_log')).toContain(line)
    })

    test('a table that is added and forgotten is noticed', async () => {
      await sql
        .raw(`create table ${s}.added (user_id text not null primary key, secret text);
        insert into ${s}.added values ('carla', 'x')`)
        .execute(db)
      try {
        const named: string[] = [...ERASED_TABLES.map(({ name }) => name), ...TABLES_OF_BYTES, ...KEPT_TABLES]
        const forgotten = [...(await findUserTables(db, s)).keys()].filter((name) => !named.includes(name))
        expect(forgotten).toEqual(['added'])
        await opened.tb.threads.create({ userId: 'carla' })
        await opened.tb.gdpr.erase({ userId: 'carla' }, ROOT)
        expect(await findForgotten(db, s, 'carla')).toEqual(['added'])
      } finally {
        await sql.raw(`drop table ${s}.added`).execute(db)
      }
    })

    test('the keys by which rows are paged are the primary keys', async () => {
      const { rows } = await sql<{ name: string; key: string[] }>`
        select c.relname::text as name,
               array_agg(a.attname || ' ' || format_type(a.atttypid, null) order by k.n)::text[] as key
          from pg_index i join pg_class c on c.oid = i.indrelid
          join pg_namespace n on n.oid = c.relnamespace
          cross join unnest(i.indkey) with ordinality as k (attnum, n)
          join pg_attribute a on a.attrelid = c.oid and a.attnum = k.attnum
         where n.nspname = ${s} and i.indisprimary group by 1`.execute(db)
      const keys = new Map(rows.map(({ name, key }) => [name, key.slice(1)]))
      for (const { name, key } of ERASED_TABLES)
        expect(
          key.map((column) => column.join(' ')),
          name,
        ).toEqual(keys.get(name))
    })
  })
}
