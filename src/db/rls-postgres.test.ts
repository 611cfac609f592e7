import { randomBytes } from 'node:crypto'
import { setTimeout as delay } from 'node:timers/promises'
import { type Kysely, sql } from 'kysely'
import pg from 'pg'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { engines, newSchemaName, postgresUrl } from '../../test/harness.ts'
import { startTcpProxy } from '../../test/tcp-proxy.ts'
import { ownersOf, whoIs } from '../../test/who-is.ts'
import { silentLog } from '../core/log.ts'
import { openThreadbase } from '../open-threadbase.ts'
import { upgrade } from './migrate.ts'
import { loadMigrations } from './migrations.ts'
import { openPostgres } from './postgres.ts'
import { prepareRls } from './rls.ts'
import type { Schema } from './schema.ts'

describe.skipIf(postgresUrl === null)('row level security off', () => {
  test('a handle of a user is that of the system', async () => {
    const database = await openPostgres({ url: String(postgresUrl), log: silentLog })
    expect(database.rls).toBe('off')
    expect(database.forUser('alice')).toBe(database.db)
    await prepareRls(database, { grant: true })
    await database.close()
  })
})

describe.skipIf(postgresUrl === null)('row level security enforced on a pool', () => {
  const postgres = engines.find(({ name }) => name === 'postgres')
  const open = (options: object) => {
    if (postgres === undefined) throw new Error('no postgres')
    return postgres.open({ rls: 'enforce', poolSize: 1, maxOverflow: 0, ...options })
  }
  const backend = async (db: Kysely<Schema>) =>
    (await sql<{ pid: number }>`select pg_backend_pid() as pid`.execute(db)).rows[0]?.pid as number

  test.each([true, false])('statements by name (%s): each runs as its user', async (preparedStatements) => {
    const { database, close } = await open({ preparedStatements })
    for (let i = 0; i < 3; i++) {
      for (const user of ['a', 'b']) {
        expect(await whoIs(database.forUser(user))).toMatchObject({ role: database.appRole, user })
        const { rows } = await sql`select current_setting('threadbase.user_id') as u, ${i}::int as i`.execute(
          database.forUser(user),
        )
        expect(rows).toEqual([{ u: user, i }])
      }
    }
    const { rows } = await sql<{ n: number }>`select count(*) as n from pg_prepared_statements`.execute(
      database.db,
    )
    expect(Number(rows[0]?.n) > 0).toBe(preparedStatements)
    await close()
  })

  test('a statement that takes too long, or is cancelled, leaves nothing', async () => {
    const { database, close } = await open({ queryTimeoutS: 0.4 })
    const slow = sql`select pg_sleep(${30}::float8)`
    await expect(slow.execute(database.forUser('a'))).rejects.toThrow(/did not answer/)
    expect(await whoIs(database.db)).toMatchObject({ user: null })
    const admin = new pg.Client({ connectionString: String(postgresUrl) })
    await admin.connect()
    const pid = await backend(database.db)
    const cancelled = expect(slow.execute(database.forUser('a'))).rejects.toMatchObject({
      code: 'unavailable',
    })
    await delay(100)
    await admin.query('select pg_cancel_backend($1)', [pid])
    await cancelled
    expect(await backend(database.db)).toBe(pid)
    const { role, login, user } = await whoIs(database.db)
    expect({ role, user }).toEqual({ role: login, user: null })
    await admin.end()
    await close()
  })

  test('a connection that breaks, idle, in a statement or in a transaction, is replaced', async () => {
    const { hostname, port } = new URL(String(postgresUrl))
    const proxy = await startTcpProxy({ host: hostname, port: Number(port || 5432) })
    const url = new URL(String(postgresUrl))
    url.host = `127.0.0.1:${proxy.port}`
    const { database, close } = await open({ url: url.href, acquireTimeoutS: 2 })
    const breakDuring = async (work: Promise<unknown>) => {
      const broken = expect(work).rejects.toMatchObject({ code: 'unavailable' })
      await delay(100)
      proxy.cut()
      await broken
      proxy.restore()
      expect(await whoIs(database.forUser('b'))).toMatchObject({ user: 'b' })
      expect(await whoIs(database.db)).toMatchObject({ user: null })
    }
    await breakDuring(sql`select pg_sleep(${30}::float8)`.execute(database.forUser('a')))
    await breakDuring(
      database
        .forUser('a')
        .transaction()
        .execute((tx) => sql`select pg_sleep(${30}::float8)`.execute(tx)),
    )
    await close()
    await proxy.close()
  })

  test('a transaction that cannot become its user does not begin', async () => {
    const appRole = `tb_app_${randomBytes(4).toString('hex')}`
    const { database, close } = await open({ appRole })
    await sql`drop owned by ${sql.id(appRole)}`.execute(database.db)
    await sql`drop role ${sql.id(appRole)}`.execute(database.db)
    for (let i = 0; i < 3; i++) {
      let began = false
      const failed = database
        .forUser('a')
        .transaction()
        .execute(async () => {
          began = true
        })
      const refusal = { code: 'unavailable', message: expect.stringContaining(`may not work as ${appRole}`) }
      await expect(failed).rejects.toMatchObject(refusal)
      expect(began).toBe(false)
      await expect(ownersOf(database.forUser('a'))).rejects.toMatchObject(refusal)
      expect(await whoIs(database.db)).toMatchObject({ user: null })
    }
    // and again once it can
    await prepareRls(database, { grant: true })
    expect(await ownersOf(database.forUser('a'))).toEqual([])
    await close()
    await sql`drop role ${sql.id(appRole)}`.execute((await adminDatabase()).db)
  })

  let shared: Awaited<ReturnType<typeof openPostgres>> | undefined
  const adminDatabase = async () => {
    shared ??= await openPostgres({ url: String(postgresUrl), log: silentLog, poolSize: 1 })
    return shared
  }
  afterAll(() => shared?.close())

  test('ten openings at once, of a fresh schema and a fresh role, all succeed', async () => {
    const appRole = `tb_app_${randomBytes(4).toString('hex')}`
    const schemas = [newSchemaName(), newSchemaName()]
    const env = { DATABASE_RLS: 'enforce', DATABASE_RLS_ROLE: appRole, DATABASE_POOL_SIZE: '1' }
    const opening = Array.from({ length: 10 }, (_, n) =>
      openThreadbase({ env, databaseUrl: String(postgresUrl), databaseSchema: schemas[n % 2] }),
    )
    const all = await Promise.all(opening)
    for (const [n, tb] of all.entries()) {
      const scope = { userId: `u${n}` }
      const { id } = await tb.threads.create(scope)
      expect((await tb.threads.getThread(scope, id)).userId).toBe(scope.userId)
      expect(await whoIs(tb.database.forUser('x'))).toMatchObject({ role: appRole, user: 'x' })
    }
    await Promise.all(all.map((tb) => tb.close()))
    const { db } = await adminDatabase()
    for (const schema of schemas) await sql`drop schema ${sql.id(schema)} cascade`.execute(db)
    await sql`drop role ${sql.id(appRole)}`.execute(db)
  })

  describe('with a role that is no administrator', () => {
    const login = `tb_login_${randomBytes(4).toString('hex')}`
    const appRole = `tb_app_${randomBytes(4).toString('hex')}`
    const schema = newSchemaName()
    const open = (options: object = {}) => {
      const url = new URL(String(postgresUrl))
      url.username = login
      url.password = 'pw'
      return openPostgres({ url: url.href, schema, appRole, log: silentLog, rls: 'enforce', ...options })
    }
    const asAdmin = async (text: string) => void (await sql.raw(text).execute((await adminDatabase()).db))
    beforeAll(async () => {
      const database = decodeURIComponent(new URL(String(postgresUrl)).pathname.slice(1))
      await asAdmin(`create role ${login} login password 'pw'`)
      await asAdmin(`grant create on database ${database} to ${login}`)
    })
    afterAll(async () => {
      await asAdmin(`drop schema if exists ${schema} cascade`)
      await asAdmin(`drop owned by ${login}; drop role ${login}; drop role if exists ${appRole}`)
    })
    const refusal = async (grant: boolean, options: object = {}) => {
      const database = await open(options)
      try {
        await upgrade(database, await loadMigrations())
        return await prepareRls(database, { grant }).then(
          () => undefined,
          (error) => error,
        )
      } finally {
        await database.close()
      }
    }

    test('the statements that an administrator must run are printed, and they are the right ones', async () => {
      const error = await refusal(true)
      expect(error).toMatchObject({ code: 'unavailable', details: { sql: expect.any(String) } })
      const { message } = error as Error
      expect(message).toContain(`create role ${appRole} nologin;`)
      expect(message).toContain(`grant ${appRole} to ${login};`)
      expect(message).toContain(`grant usage on schema ${schema} to ${appRole};`)
      expect(message).toMatch(/grant select, insert, update, delete on .*\.configs, .*\.messages, .*threads/)
      expect(message).not.toContain('schema_revisions')
      await asAdmin((error as { details: { sql: string } }).details.sql)
      expect(await refusal(false)).toBeUndefined()
    })

    test('a role that is called like a word of SQL is quoted', async () => {
      const { message } = (await refusal(false, { appRole: 'user' })) as Error
      expect(message).toContain('create role "user" nologin;')
      expect(message).toContain(`grant "user" to ${login};`)
      expect(message).toMatch(/grant select, insert, update, delete on .* to "user";/)
    })

    test('a right that is taken away is named; the owner of the tables grants it again where it may', async () => {
      await asAdmin(`revoke delete on ${schema}.messages from ${appRole}`)
      const error = await refusal(false)
      expect((error as { details: { sql: string } }).details.sql).toBe(
        `grant select, insert, update, delete on ${schema}.messages to ${appRole};`,
      )
      expect(await refusal(true)).toBeUndefined()
      await asAdmin(`revoke ${appRole} from ${login}`)
      const sqlOf = (error: unknown) => (error as { details: { sql: string } }).details.sql
      expect(sqlOf(await refusal(true))).toBe(`grant ${appRole} to ${login};`)
      await asAdmin(`grant ${appRole} to ${login}`)
    })

    test('a role that row level security would not bind is refused', async () => {
      for (const attribute of ['bypassrls', 'superuser']) {
        await asAdmin(`alter role ${appRole} ${attribute}`)
        expect(await refusal(true)).toMatchObject({
          code: 'unavailable',
          message: expect.stringMatching(new RegExp(`does not bind the role ${appRole}`)),
        })
        await asAdmin(`alter role ${appRole} no${attribute}`)
      }
      expect(await refusal(true, { appRole: login })).toMatchObject({
        message: expect.stringMatching(/does not bind/),
      })
    })

    test('a connected role that is bound itself is refused', async () => {
      await asAdmin(`alter table ${schema}.threads force row level security`)
      expect(await refusal(true)).toMatchObject({
        code: 'unavailable',
        message: expect.stringMatching(/binds the role of DATABASE_URL itself \(on threads\)/),
      })
      await asAdmin(`alter table ${schema}.threads no force row level security`)
      expect(await refusal(true)).toBeUndefined()
    })
  })
})
