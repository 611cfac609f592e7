import { setTimeout as delay } from 'node:timers/promises'
import { sql } from 'kysely'
import pg from 'pg'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { engines, newSchemaName, postgresUrl, recordingLog, type TestDatabase } from '../../test/harness.ts'
import { type Cluster, clusterAvailable, freePort, makeCluster } from '../../test/postgres-cluster.ts'
import { startTcpProxy, type TcpProxy } from '../../test/tcp-proxy.ts'
import { silentLog } from '../core/log.ts'
import type { Database } from './database.ts'
import { isSqlState } from './errors.ts'
import { run } from './migrate.ts'
import { openPostgres } from './postgres.ts'

const postgres = engines.find(({ name }) => name === 'postgres')

async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await condition())) await delay(20)
}

const nap = ({ db }: Database, seconds: number) =>
  sql`/* nap */ select pg_sleep(${seconds}::float8)`.execute(db)

describe.skipIf(postgresUrl === null)('the pool', () => {
  let admin: pg.Client
  beforeAll(async () => {
    admin = new pg.Client({ connectionString: postgresUrl as string })
    await admin.connect()
  })
  afterAll(() => admin?.end())
  const open = (options: object = {}): Promise<TestDatabase> => {
    if (postgres === undefined) throw new Error('no postgres')
    return postgres.open({ migrations: [], ...options })
  }
  /** The server's processes of this pool: those that wait in or last ran a statement with this mark. */
  const backend = async ({ db }: Database) =>
    (await sql<{ pid: number }>`select pg_backend_pid() as pid`.execute(db)).rows[0]?.pid as number

  test('opens 15 connections at most, serves 40 callers, and goes back to 5', async () => {
    const { database, close } = await open({ idleTimeoutS: 1 })
    let most = 0
    const watch = setInterval(() => {
      most = Math.max(most, database.stats().open)
    }, 5)
    await Promise.all(Array.from({ length: 40 }, () => nap(database, 0.1)))
    clearInterval(watch)
    expect(most).toBe(15)
    expect(database.stats().waiting).toBe(0)
    await until(() => database.stats().open <= 5)
    await delay(300)
    expect(database.stats().open).toBe(5)
    await close()
  })

  test('a caller that gets no connection in time is told that the database is unavailable', async () => {
    const { database, close } = await open({ poolSize: 1, maxOverflow: 0, acquireTimeoutS: 0.2 })
    const long = nap(database, 1)
    await expect(nap(database, 0)).rejects.toMatchObject({ code: 'unavailable' })
    await long
    await nap(database, 0)
    await close()
  })

  test('a connection that died while idle is not noticed by the next caller', async () => {
    const { database, close } = await open({ poolSize: 1, maxOverflow: 0 })
    for (let i = 0; i < 3; i++) {
      await admin.query('select pg_terminate_backend($1)', [await backend(database)])
      await until(() => database.stats().open === 0)
      await nap(database, 0)
    }
    await close()
  })

  test('a connection that dies in use fails its own statement only', async () => {
    const { database, close } = await open({ poolSize: 1, maxOverflow: 0 })
    const pid = await backend(database)
    const victim = nap(database, 30)
    const next = nap(database, 0)
    const expectation = expect(victim).rejects.toMatchObject({ code: 'unavailable' })
    await delay(50)
    await admin.query('select pg_terminate_backend($1)', [pid])
    await expectation
    await next
    await nap(database, 0)
    await close()
  })

  test('a transaction whose connection dies is unavailable, whatever it does then', async () => {
    const { database, close } = await open({ poolSize: 1, maxOverflow: 0 })
    const dying = database.db.transaction().execute(async (tx) => {
      const { rows } = await sql<{ pid: number }>`select pg_backend_pid() as pid`.execute(tx)
      await admin.query('select pg_terminate_backend($1)', [rows[0]?.pid])
      await delay(100)
      await sql`select 1`.execute(tx)
    })
    await expect(dying).rejects.toMatchObject({ code: 'unavailable' })
    await nap(database, 0)
    await close()
  })

  test('a statement that the server cancels is unavailable and the connection lives on', async () => {
    const { database, close } = await open({ poolSize: 1, maxOverflow: 0 })
    const pid = await backend(database)
    const victim = expect(nap(database, 30)).rejects.toMatchObject({ code: 'unavailable' })
    await delay(50)
    await admin.query('select pg_cancel_backend($1)', [pid])
    await victim
    expect(await backend(database)).toBe(pid)
    await close()
  })

  describe('behind a network that falls silent', () => {
    let proxy: TcpProxy
    beforeEach(async () => {
      const { hostname, port } = new URL(postgresUrl as string)
      proxy = await startTcpProxy({ host: hostname, port: Number(port || 5432) })
    })
    afterEach(() => proxy.close())
    const openThrough = (options: object = {}) => {
      const url = new URL(postgresUrl as string)
      url.host = `127.0.0.1:${proxy.port}`
      return openPostgres({ url: url.href, log: silentLog, acquireTimeoutS: 1, ...options })
    }

    test('a statement is given up in time, and the next one goes on a new connection', async () => {
      const database = await openThrough({ queryTimeoutS: 0.5 })
      await database.ping()
      proxy.silence()
      const victims = [
        nap(database, 0),
        database.db.transaction().execute(async (tx) => sql`select 1`.execute(tx)),
      ]
      for (const victim of victims) await expect(victim).rejects.toMatchObject({ code: 'unavailable' })
      await expect(victims[0]).rejects.toThrow(/did not answer within 0.5 s.*not known/)
      proxy.restore()
      await database.ping()
      await database.close()
    })

    test('closing does not wait for it', async () => {
      const database = await openThrough({ closeGraceS: 0.3 })
      await Promise.all([nap(database, 0.05), nap(database, 0.05)])
      const pid = await backend(database)
      expect(pid).toBeGreaterThan(0)
      proxy.silence()
      const victim = expect(nap(database, 0)).rejects.toMatchObject({ code: 'unavailable' })
      await delay(50)
      const started = Date.now()
      await database.close()
      expect(Date.now() - started).toBeLessThan(2_000)
      await victim
    })
  })

  test('a statement within its time is not touched, nor one of a migration', async () => {
    const { database, close } = await open({ queryTimeoutS: 0.3, poolSize: 1, maxOverflow: 0 })
    const pid = await backend(database)
    await nap(database, 0.1)
    await run(database.db, 'select pg_sleep(0.6)')
    expect(await backend(database)).toBe(pid)
    await expect(nap(database, 5)).rejects.toThrow(/did not answer within 0.3 s/)
    expect(await backend(database)).not.toBe(pid)
    await close()
  })

  test('closing ends the wait of all callers at once, lets short statements finish, and breaks long ones off', async () => {
    const url = String(postgresUrl)
    const database = await openPostgres({ url, log: silentLog, poolSize: 2, maxOverflow: 0, closeGraceS: 1 })
    const short = nap(database, 0.5)
    const long = nap(database, 30).then(
      () => 'done',
      (error) => error.code,
    )
    const started = Date.now()
    const waiting = Array.from({ length: 60 }, () =>
      nap(database, 0).then(
        () => 'done',
        (error) => `${error.code} after ${Math.round((Date.now() - started) / 400)}`,
      ),
    )
    await delay(50)
    const closing = database.close()
    expect(new Set(await Promise.all(waiting))).toEqual(new Set(['unavailable after 0']))
    await short
    await closing
    expect(Date.now() - started).toBeLessThan(3_000)
    expect(await long).toBe('unavailable')
    await expect(database.ping()).rejects.toMatchObject({ code: 'unavailable' })
  })

  test('closing does not wait for ever for a transaction that does something else', async () => {
    const database = await openPostgres({ url: String(postgresUrl), log: silentLog, closeGraceS: 0.2 })
    let finish = () => {}
    const idle = new Promise<void>((resolve) => {
      finish = resolve
    })
    const transaction = expect(
      database.db.transaction().execute(async (tx) => {
        await sql`select 1`.execute(tx)
        await idle
        await sql`select 2`.execute(tx)
      }),
    ).rejects.toMatchObject({ code: 'unavailable' })
    await delay(100)
    await database.close()
    finish()
    await transaction
  })

  /** Raises what a server would raise, with this SQLSTATE. */
  const raise = ({ db }: Database, state: string) =>
    run(db, `do $$ begin raise exception 'said so' using errcode = '${state}'; end $$`)

  test.each([
    ['25006', /read-only/, true],
    ['55P03', /lock/, false],
    ['28P01', /password/, false],
    ['3D000', /refuses/, false],
    ['42501', /lacks a right: said so/, false],
    ['40001', /collided/, false],
  ])('%s is unavailable and says why', async (state, message, reconnects) => {
    const { database, close } = await open({ poolSize: 1, maxOverflow: 0 })
    const pid = await backend(database)
    const error = await raise(database, state).catch((reason: unknown) => reason)
    expect(error).toMatchObject({ code: 'unavailable', message: expect.stringMatching(message) })
    expect(isSqlState(error, state)).toBe(true)
    expect((await backend(database)) !== pid).toBe(reconnects)
    await close()
  })

  test('a role that may no longer log in is unavailable', async () => {
    const role = newSchemaName()
    await admin.query(`create role ${role} login password 'one'`)
    const url = new URL(postgresUrl as string)
    url.username = role
    url.password = 'one'
    const database = await openPostgres({ url: url.href, log: silentLog, poolSize: 1 })
    const pid = await backend(database)
    await admin.query(`alter role ${role} nologin`)
    await admin.query('select pg_terminate_backend($1)', [pid])
    await until(() => database.stats().open === 0)
    await expect(database.ping()).rejects.toMatchObject({
      code: 'unavailable',
      message: expect.stringContaining('refuses the connection'),
    })
    await database.close()
    await admin.query(`drop role ${role}`)
  })

  test('statements are prepared by name, or not at all', async () => {
    const named = (database: Database) =>
      database.db.transaction().execute(async (tx) => {
        for (let i = 0; i < 2; i++) await sql`/* twice */ select ${i}::int`.execute(tx)
        const { rows } = await sql<{ name: string }>`
          select name from pg_prepared_statements where statement like '/* twice */%'`.execute(tx)
        return rows
      })
    const on = await open()
    expect(await named(on.database)).toHaveLength(1)
    await on.close()
    const off = await open({ preparedStatements: false })
    expect(await named(off.database)).toHaveLength(0)
    await off.close()
  })

  test('is described without its credentials', async () => {
    const { database, close } = await open()
    const { hostname, port, pathname } = new URL(postgresUrl as string)
    expect(database.description).toBe(`PostgreSQL at ${hostname}${port && `:${port}`}${pathname}`)
    await close()
  })
})

describe.skipIf(!clusterAvailable('starting and failing to start on PostgreSQL'))(
  'opening PostgreSQL',
  () => {
    const password = 'pa55-w0rd'
    let cluster: Cluster
    beforeAll(async () => {
      cluster = await makeCluster({ password })
    })
    afterAll(() => cluster?.remove())

    /** What opening fails with, checked for secrets, and how often it was tried. */
    async function refusal(url: string, startTimeoutS: number) {
      const { log, logged } = recordingLog()
      const error: Error & { code?: unknown } = await openPostgres({ url, log, startTimeoutS }).then(
        () => {
          throw new Error('it opened')
        },
        (reason: Error) => reason,
      )
      const shown = [
        error.message,
        JSON.stringify(error),
        ...logged.map((record) => JSON.stringify(record)),
      ].join(' ')
      for (const secret of [password, 'wrong-secret', url, 'postgres://']) expect(shown).not.toContain(secret)
      return { error, retries: logged.filter(({ message }) => /not answer/.test(message)).length }
    }

    test('a server that is down is tried again with pauses, then unavailable', async () => {
      const url = `postgres://postgres:${password}@127.0.0.1:${await freePort()}/postgres`
      const { error, retries } = await refusal(url, 2)
      expect(error).toMatchObject({ code: 'unavailable' })
      expect(error.message).toContain('ECONNREFUSED')
      expect(retries).toBeGreaterThanOrEqual(2)
      expect(retries).toBeLessThan(15)
    })

    test('without a start timeout it is tried once', async () => {
      const url = `postgres://postgres:${password}@127.0.0.1:${await freePort()}/postgres`
      expect(await refusal(url, 0)).toMatchObject({ error: { code: 'unavailable' }, retries: 0 })
    })

    test.each([
      ['a wrong password', () => cluster.url.replace(password, 'wrong-secret'), /password/],
      ['no password', () => cluster.url.replace(`:${password}`, ''), /password/],
      ['an unknown user', () => cluster.url.replace('postgres:pa', 'nobody:pa'), /user/],
      ['sslmode on a server without TLS', () => `${cluster.url}?sslmode=verify-full`, /sslmode/],
      ['a database that does not exist', () => `${cluster.url}_not_there`, /no such database/],
    ])('%s is said at once', async (_, url, message) => {
      const { error, retries } = await refusal(url(), 20)
      expect(error.message).toMatch(message)
      expect(retries).toBe(0)
    })

    test('a server that comes up late is waited for', async () => {
      await cluster.stop()
      const { log, logged } = recordingLog()
      const opening = openPostgres({ url: cluster.url, log, startTimeoutS: 30 })
      await until(() => logged.length >= 2)
      await cluster.start()
      const database = await opening
      await database.ping()
      await database.close()
    })

    test('a restart of the server is one unavailable each, then it goes on', async () => {
      const { log } = recordingLog()
      const database = await openPostgres({ url: cluster.url, log })
      const victim = expect(nap(database, 30)).rejects.toMatchObject({ code: 'unavailable' })
      await delay(50)
      await cluster.stop('immediate')
      await victim
      await expect(database.ping()).rejects.toMatchObject({ code: 'unavailable' })
      await cluster.start()
      await database.ping()
      await database.close()
    })
  },
)
