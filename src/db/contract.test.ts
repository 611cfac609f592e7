import { setTimeout as delay } from 'node:timers/promises'
import { type Kysely, sql, type Transaction } from 'kysely'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { engines, type OpenOptions, type TestDatabase } from '../../test/harness.ts'
import { encodeJsonb } from '../core/json.ts'
import type { Schema } from './schema.ts'

// What both openers promise, in one suite: the repositories are written once and must not see a difference.
for (const engine of engines) {
  describe.skipIf(!engine.available)(`the SQL port on ${engine.name}`, () => {
    let opened: TestDatabase
    let db: Kysely<Schema>
    const options: OpenOptions = { migrations: [], slowQueryMs: 200 }
    beforeAll(async () => {
      opened = await engine.open(options)
      db = opened.database.db
      const schema = sql.id(opened.database.schema)
      await sql`create schema if not exists ${schema}`.execute(db)
      await sql`create table ${schema}.numbers (n int primary key)`.execute(db)
    })
    afterAll(() => opened?.close())
    const numbers = () => sql.table(`${opened.database.schema}.numbers`)
    const insert = (on: Kysely<Schema>, n: number) =>
      sql`insert into ${numbers()} values (${n}::int)`.execute(on)
    const stored = async (on: Kysely<Schema> = db) =>
      (await sql<{ n: number }>`select n from ${numbers()} order by n`.execute(on)).rows.map(({ n }) => n)
    const value = async (expression: ReturnType<typeof sql>): Promise<unknown> =>
      (await sql<{ v: unknown }>`select ${expression} as v`.execute(db)).rows[0]?.v

    test('int8 and count() are numbers, and text beyond what a double holds', async () => {
      expect(await value(sql`9007199254740991::int8`)).toBe(9007199254740991)
      expect(await value(sql`(-9007199254740993)::int8`)).toBe('-9007199254740993')
      expect(await value(sql`(select count(*) from generate_series(1, 3))`)).toBe(3)
      expect(await value(sql`(select sum(x) from generate_series(1, 3) x)`)).toBe(6)
      expect(await value(sql`${9007199254740991}::int8`)).toBe(9007199254740991)
    })

    test('other numbers', async () => {
      expect(await value(sql`7::int4`)).toBe(7)
      expect(await value(sql`0.1::float8`)).toBe(0.1)
      expect(await value(sql`12345678901234567890.0100::numeric`)).toBe('12345678901234567890.0100')
      expect(await value(sql`${0.1}::float8`)).toBe(0.1)
    })

    test('text, boolean, uuid, null', async () => {
      expect(await value(sql`${"it's ü 😀 \\ \n"}::text`)).toBe("it's ü 😀 \\ \n")
      expect(await value(sql`${true}::boolean`)).toBe(true)
      expect(await value(sql`${null}::text`)).toBeNull()
      expect(await value(sql`'0192F0C1-2F6B-7CC0-8D2E-5F0A6D2F4B11'::uuid`)).toBe(
        '0192f0c1-2f6b-7cc0-8d2e-5f0a6d2f4b11',
      )
    })

    test('bytea is a Buffer both ways', async () => {
      const bytes = Buffer.from([0, 1, 127, 128, 255])
      const back = await value(sql`${bytes}::bytea`)
      expect(Buffer.isBuffer(back)).toBe(true)
      expect(back).toEqual(bytes)
    })

    test('timestamptz is a Date both ways, to the millisecond', async () => {
      const when = new Date('2026-01-31T12:34:56.789Z')
      expect(await value(sql`${when}::timestamptz`)).toEqual(when)
      expect(await value(sql`'1969-12-31 23:59:59.001+00'::timestamptz`)).toEqual(new Date(-999))
    })

    test('json and jsonb are their values: arrays, NUL, big numbers', async () => {
      const list = [1, 'two', null, { three: [3] }, 'nul \0 and \ud800']
      expect(await value(sql`${encodeJsonb(list)}::jsonb`)).toEqual(list)
      expect(await value(sql`${encodeJsonb('text')}::jsonb`)).toBe('text')
      expect(await value(sql`'null'::jsonb`)).toBeNull()
      expect(await value(sql`null::jsonb`)).toBeNull()
      const exact = '{"b":12345678901234567890,"a":[1.10]}'
      expect(JSON.stringify(await value(sql`${exact}::json`))).toBe('{"b":12345678901234567890,"a":[1.1]}')
    })

    test('arrays, of null and of text that needs quoting too', async () => {
      expect(await value(sql`${[1, null, 3]}::int[]`)).toEqual([1, null, 3])
      const texts = ['', 'null', 'a,b', '{"}', "o'clock", '\\', null]
      expect(await value(sql`${texts}::text[]`)).toEqual(texts)
      expect(await value(sql`array[]::text[]`)).toEqual([])
      expect(await value(sql`array[1, 9007199254740993]::int8[]`)).toHaveLength(2)
    })

    test('intervals have their parts', async () => {
      expect(await value(sql`interval '1 day 2 hours 3.5 seconds'`)).toMatchObject({
        days: 1,
        hours: 2,
        seconds: 3,
        milliseconds: 500,
      })
    })

    test('how many rows a statement changed', async () => {
      expect((await insert(db, -1)).numAffectedRows).toBe(1n)
      expect((await sql`delete from ${numbers()} where n < 0`.execute(db)).numAffectedRows).toBe(1n)
      expect((await sql`delete from ${numbers()} where n < 0`.execute(db)).numAffectedRows).toBe(0n)
    })

    test('one statement may be used with several types of the same parameter', async () => {
      for (let i = 0; i < 3; i++) {
        expect(await value(sql`${i}::int`)).toBe(i)
        expect(await value(sql`${`${i}`}::text`)).toBe(`${i}`)
      }
    })

    test('a failed statement gives its error and the next one works', async () => {
      await expect(sql`select 1 / ${0}::int`.execute(db)).rejects.toMatchObject({ code: 'invalid_input' })
      await expect(sql`select * from nowhere`.execute(db)).rejects.toMatchObject({ code: 'unavailable' })
      await expect(sql`selec ${1}::int`.execute(db)).rejects.toMatchObject({ code: '42601' })
      expect(await value(sql`1`)).toBe(1)
    })

    test('a transaction that fails leaves nothing', async () => {
      const failing = db.transaction().execute(async (tx) => {
        await insert(tx, 900)
        throw new Error('changed my mind')
      })
      await expect(failing).rejects.toThrow('changed my mind')
      const broken = db.transaction().execute(async (tx) => {
        await insert(tx, 901)
        await insert(tx, 901)
      })
      await expect(broken).rejects.toMatchObject({ code: '23505' })
      expect(await stored()).not.toContain(900)
      expect(await stored()).not.toContain(901)
    })

    test('a transaction whose failed statement was swallowed does not commit in silence', async () => {
      const swallowed = db.transaction().execute(async (tx) => {
        await insert(tx, 910)
        await insert(tx, 910).catch(() => {})
      })
      await expect(swallowed).rejects.toThrow()
      expect(await stored()).not.toContain(910)
    })

    test('nobody sees the rows of a transaction before its end', async () => {
      const inside = Promise.withResolvers<void>()
      let committed = false
      const writing = db.transaction().execute(async (tx) => {
        await insert(tx, 920)
        inside.resolve()
        await delay(100)
        await insert(tx, 921)
        committed = true
      })
      await inside.promise
      const looks = Array.from({ length: 5 }, async () => {
        const rows = await stored()
        const half = rows.includes(920) !== rows.includes(921)
        return half || (rows.includes(920) && !committed)
      })
      expect(await Promise.all(looks)).toEqual([false, false, false, false, false])
      await writing
      expect(await stored()).toEqual(expect.arrayContaining([920, 921]))
    })

    test('many transactions at once, every other one failing, among other statements', async () => {
      const count = 40
      const one = (n: number) =>
        db.transaction().execute(async (tx: Transaction<Schema>) => {
          await insert(tx, n)
          await delay(n % 3)
          await insert(tx, n + 1_000)
          if (n % 2 === 1) throw new Error(`no ${n}`)
        })
      const work = Array.from({ length: count }, (_, n) => one(n))
      const plain = Array.from({ length: count }, (_, n) => insert(db, n + 2_000))
      const results = await Promise.allSettled(work)
      await Promise.all(plain)
      expect(results.map(({ status }) => status === 'fulfilled')).toEqual(
        Array.from({ length: count }, (_, n) => n % 2 === 0),
      )
      const even = Array.from({ length: count / 2 }, (_, n) => 2 * n)
      const expected = [
        ...even,
        ...even.map((n) => n + 1_000),
        ...Array.from({ length: count }, (_, n) => n + 2_000),
      ]
      expect((await stored()).filter((n) => n < 900 || n >= 1_000)).toEqual(expected)
    })

    test('concurrent read-then-write transactions lose no update', async () => {
      await sql`create table ${sql.table(`${opened.database.schema}.counter`)} as select 0 as n`.execute(db)
      const counter = sql.table(`${opened.database.schema}.counter`)
      const bump = () =>
        db.transaction().execute(async (tx) => {
          const { rows } = await sql<{ n: number }>`select n from ${counter} for update`.execute(tx)
          await sql`update ${counter} set n = ${Number(rows[0]?.n) + 1}::int`.execute(tx)
        })
      await Promise.all(Array.from({ length: 25 }, bump))
      expect((await sql`select n from ${counter}`.execute(db)).rows).toEqual([{ n: 25 }])
    })

    test('read-only transactions are that', async () => {
      const writing = db
        .transaction()
        .setAccessMode('read only')
        .execute((tx) => insert(tx, 930))
      await expect(writing).rejects.toMatchObject({ code: 'unavailable', cause: { code: '25006' } })
    })

    test('a slow query is logged by name, without its parameters', async () => {
      opened.logged.length = 0
      await sql`/* naps.take */ select pg_sleep(0.3), ${'topsecret'}::text`.execute(db)
      await sql`/* naps.skip */ select ${'topsecret'}::text`.execute(db)
      const slow = opened.logged.filter(({ message }) => message === 'slow query')
      expect(slow).toHaveLength(1)
      expect(slow[0]?.facts).toMatchObject({ query: 'naps.take', ms: expect.any(Number) })
      expect(JSON.stringify(opened.logged)).not.toContain('topsecret')
    })

    test('ping answers', async () => {
      await expect(opened.database.ping()).resolves.toBeUndefined()
    })

    test('close waits for running statements; what comes later is unavailable', async () => {
      const other = await engine.open({ migrations: [] })
      const { database } = other
      const running = sql<{ v: number }>`select 7 as v, pg_sleep(0.3)`.execute(database.db)
      await delay(50)
      await Promise.all([database.close(), expect(running).resolves.toMatchObject({ rows: [{ v: 7 }] })])
      await expect(sql`select 1`.execute(database.db)).rejects.toMatchObject({ code: 'unavailable' })
      await expect(database.ping()).rejects.toMatchObject({ code: 'unavailable' })
      await expect(database.db.transaction().execute(stored)).rejects.toMatchObject({ code: 'unavailable' })
      await database.close()
    })
  })
}
