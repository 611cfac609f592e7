import { randomUUID } from 'node:crypto'
import { setTimeout as delay } from 'node:timers/promises'
import { type RawBuilder, sql } from 'kysely'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { engines, postgresUrl, type TestDatabase } from '../../test/harness.ts'
import { startTcpProxy } from '../../test/tcp-proxy.ts'
import { ownersOf, whoIs } from '../../test/who-is.ts'
import type { Database } from './database.ts'

const threads = sql.table('threads')

/** The statement of each user, together. */
const together = <R>(database: Database, users: string[], statementOf: (userId: string) => RawBuilder<R>) =>
  database.forUsers(users.map((userId) => ({ userId, query: statementOf(userId).compile(database.db) })))

const insert = (userId: string) =>
  sql<{ user_id: string }>`
    insert into ${threads} (user_id, id) values (${userId}, ${randomUUID()}::uuid) returning user_id`

async function expectNobody({ db }: Database): Promise<void> {
  const { role, login, user } = await whoIs(db)
  expect({ role, user }).toEqual({ role: login, user: null })
}

for (const engine of engines) {
  describe.skipIf(!engine.available)(`a statement for several users on ${engine.name}`, () => {
    let opened: TestDatabase
    let database: Database
    beforeAll(async () => {
      // one connection: what a statement leaves behind, the next one would see
      opened = await engine.open({ rls: 'enforce', poolSize: 1, maxOverflow: 0 })
      database = opened.database
    })
    afterAll(() => opened?.close())

    test('each sees its own rows only, and gets its own result, in order', async () => {
      const users = ['dora', 'ada', 'carl', 'bob']
      const inserted = await together(database, users, insert)
      expect(inserted.map(({ rows }) => rows)).toEqual(users.map((user_id) => [{ user_id }]))
      const seen = await together(
        database,
        users,
        (u) => sql`
          select current_user::text as role, current_setting('threadbase.user_id') as setting, ${u} as value,
                 array(select user_id from ${threads}) as owners`,
      )
      const role = database.appRole
      expect(seen.map(({ rows }) => rows)).toEqual(
        users.map((user) => [{ role, setting: user, value: user, owners: [user] }]),
      )
      await expectNobody(database)
    })

    test('no row, one row or many, and statements that return none', async () => {
      const counts = ['0', '3', '1', '0']
      const series = await together(
        database,
        counts,
        (n) => sql`select i from generate_series(1, ${n}::int) i`,
      )
      expect(series.map(({ rows }) => rows.length)).toEqual([0, 3, 1, 0])
      const users = ['none 1', 'none 2', 'none 3']
      await together(database, ['none 1', 'none 3', 'none 3'], insert)
      const updated = await together(database, users, (u) => sql`update ${threads} set title = ${u}`)
      expect(updated.map(({ numAffectedRows }) => numAffectedRows)).toEqual([1n, 0n, 2n])
      const { rows } =
        await sql`select distinct title from ${threads} where title is not null order by 1`.execute(
          database.db,
        )
      expect(rows).toEqual([{ title: 'none 1' }, { title: 'none 3' }])
      expect(await database.forUsers([])).toEqual([])
    })

    test('a statement without parameters has its users, too; two statements are refused', async () => {
      const seen = await together(
        database,
        ['x', 'y'],
        () => sql`select current_setting('threadbase.user_id') as user`,
      )
      expect(seen.map(({ rows }) => rows)).toEqual([[{ user: 'x' }], [{ user: 'y' }]])
      const different = together(database, ['x', 'y'], (u) => sql`select ${sql.lit(u)}`)
      await expect(different).rejects.toThrow(/one statement/)
    })

    test.each([0, 1, 2])('when the one at place %i fails, none is stored', async (bad) => {
      const users = ['f1', 'f2', 'f3']
      const foreign = together(database, users, (u) => insert(u === users[bad] ? 'bob' : u))
      await expect(foreign).rejects.toMatchObject({ cause: { code: '42501' } })
      const wrong = together(
        database,
        users,
        (u) => sql`
        with new as (${insert(u)}) select 1 / ${u === users[bad] ? 0 : 1}::int from new`,
      )
      await expect(wrong).rejects.toMatchObject({ code: 'invalid_input', cause: { code: '22012' } })
      const endless: Record<string, unknown> = {}
      endless.self = endless
      const unsendable = together(
        database,
        users,
        (u) => sql`
        with new as (${insert(u)}) select ${u === users[bad] ? endless : {}}::json from new`,
      )
      await expect(unsendable).rejects.toThrow(/circular/)
      for (const user of users) expect(await ownersOf(database.forUser(user))).toEqual([])
      await expectNobody(database)
    })

    test('a user that cannot be set fails all, and leaves nothing', async () => {
      await expect(together(database, ['n1', 'n\0', 'n2'], insert)).rejects.toThrow()
      expect(await ownersOf(database.forUser('n1'))).toEqual([])
      await expectNobody(database)
    })

    test('between callers of every kind, on one connection, each stays its own', async () => {
      const users = Array.from({ length: 6 }, (_, n) => `among ${n}`)
      await together(database, users, insert)
      const act = async (n: number) => {
        for (let round = 0; round < 4; round++) {
          const kind = (n + round) % 4
          const own = [...users.slice(n % 6), ...users.slice(0, n % 6)]
          if (kind === 0) {
            const seen = await together(database, own, () => sql`select distinct user_id from ${threads}`)
            expect(seen.map(({ rows }) => rows)).toEqual(own.map((user_id) => [{ user_id }]))
          } else if (kind === 1) {
            const failed = together(database, own, (u) => sql`select 1 / ${u === 'among 3' ? 0 : 1}::int`)
            await expect(failed).rejects.toThrow(/zero/)
          } else if (kind === 2) {
            const user = own[0] as string
            await database
              .forUser(user)
              .transaction()
              .execute(async (tx) => expect(await ownersOf(tx)).toEqual([user]))
          } else await expectNobody(database)
        }
      }
      await Promise.all(Array.from({ length: 24 }, (_, n) => act(n)))
      await expectNobody(database)
    })
  })

  describe.skipIf(!engine.available)(`a statement for several users, not enforced, on ${engine.name}`, () => {
    test('all run as the system, or none', async () => {
      const { database, close } = await engine.open({ rls: 'off' })
      const inserted = await together(database, ['a', 'b'], insert)
      expect(inserted.map(({ rows }) => rows)).toEqual([[{ user_id: 'a' }], [{ user_id: 'b' }]])
      const failed = together(
        database,
        ['c', 'd'],
        (u) => sql`
        with new as (${insert(u)}) select 1 / ${u === 'd' ? 0 : 1}::int from new`,
      )
      await expect(failed).rejects.toThrow(/zero/)
      expect(await ownersOf(database.db)).toEqual(['a', 'b'])
      await close()
    })
  })
}

describe.skipIf(postgresUrl === null)('a statement for several users on a pool', () => {
  const open = (options: object) => {
    const postgres = engines.find(({ name }) => name === 'postgres')
    if (postgres === undefined) throw new Error('no postgres')
    return postgres.open({ rls: 'enforce', poolSize: 1, maxOverflow: 0, ...options })
  }
  const users = ['a', 'b', 'c']
  const sleep = (u: string) => sql`select pg_sleep(${u === 'b' ? 30 : 0}::float8)`

  test.each([true, false])(
    'statements by name (%s): the settings and the statement',
    async (preparedStatements) => {
      const { database, close } = await open({ preparedStatements })
      for (let i = 0; i < 3; i++) {
        const inserted = await together(database, users, insert)
        expect(inserted.map(({ rows }) => rows)).toEqual(users.map((user_id) => [{ user_id }]))
        await expect(together(database, users, () => insert('z'))).rejects.toThrow(/row-level security/)
        await expectNobody(database)
      }
      expect(await ownersOf(database.db)).toEqual(users)
      const { rows } = await sql<{
        text: string
      }>`select statement as text from pg_prepared_statements`.execute(database.db)
      const prepared = ['rls.identity', 'returning user_id'].map(
        (words) => rows.filter(({ text }) => text.includes(words)).length,
      )
      expect(prepared).toEqual(preparedStatements ? [1, 1] : [0, 0])
      await close()
    },
  )

  test('one that takes too long is given up for all, logged and traced once', async () => {
    const traced: string[] = []
    const trace = (name: string) => (error?: unknown) =>
      void traced.push(`${name} ${error === undefined ? 'ok' : 'failed'}`)
    const { database, close, logged } = await open({ queryTimeoutS: 0.4, slowQueryMs: 300, trace })
    traced.length = 0
    await expect(together(database, users, sleep)).rejects.toMatchObject({
      code: 'unavailable',
      message: expect.stringContaining('did not answer'),
    })
    expect(traced).toEqual(['select failed'])
    expect(logged.filter(({ message }) => message === 'slow query')).toHaveLength(1)
    await expectNobody(database)
    await close()
  })

  test('a connection that breaks is replaced', async () => {
    const { hostname, port } = new URL(String(postgresUrl))
    const proxy = await startTcpProxy({ host: hostname, port: Number(port || 5432) })
    const url = new URL(String(postgresUrl))
    url.host = `127.0.0.1:${proxy.port}`
    const { database, close } = await open({ url: url.href, acquireTimeoutS: 2 })
    const broken = expect(together(database, users, sleep)).rejects.toMatchObject({
      code: 'unavailable',
    })
    await delay(100)
    proxy.cut()
    await broken
    proxy.restore()
    await expectNobody(database)
    expect(await together(database, users, insert)).toHaveLength(3)
    await close()
    await proxy.close()
  })
})
