import { randomBytes, randomUUID } from 'node:crypto'
import { setTimeout as delay } from 'node:timers/promises'
import { type Kysely, sql } from 'kysely'
import pg from 'pg'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { engines, newSchemaName, postgresUrl, type TestDatabase } from '../../test/harness.ts'
import { startTcpProxy } from '../../test/tcp-proxy.ts'
import { silentLog } from '../core/log.ts'
import { openThreadbase } from '../threadbase.ts'
import { findDrift } from './drift.ts'
import { downgrade, upgrade } from './migrate.ts'
import { loadMigrations } from './migrations.ts'
import { openPostgres } from './postgres.ts'
import { prepareRls } from './rls.ts'
import type { Schema } from './schema.ts'

type Who = { role: string; login: string; user: string | null }

/** Under which role, and for which user, a handle's statements run. */
async function whoIs(db: Kysely<Schema>): Promise<Who> {
  const { rows } = await sql<Who>`
    select current_user::text as role, session_user::text as login,
           nullif(current_setting('threadbase.user_id', true), '') as user`.execute(db)
  return rows[0] as Who
}

/** A query that forgot its user. */
const ownersOf = async (db: Kysely<Schema>, table: 'threads' | 'messages' = 'threads') =>
  (
    await sql<{ user_id: string }>`select distinct user_id from ${sql.table(table)} order by 1`.execute(db)
  ).rows.map(({ user_id }) => user_id)

const insertFor = (db: Kysely<Schema>, userId: string) =>
  sql`insert into ${sql.table('threads')} (user_id, id) values (${userId}, ${randomUUID()}::uuid)`.execute(db)

class Undo extends Error {}

for (const engine of engines) {
  describe.skipIf(!engine.available)(`row level security enforced on ${engine.name}`, () => {
    let opened: TestDatabase
    let system: Kysely<Schema>
    let forUser: TestDatabase['database']['forUser']
    beforeAll(async () => {
      // one connection: what a statement leaves behind, the next one would see
      opened = await engine.open({ rls: 'enforce', poolSize: 1, maxOverflow: 0 })
      system = opened.database.db
      forUser = opened.database.forUser
      for (const userId of ['alice', 'bob']) {
        const { id } = await opened.tb.threads.create({ userId })
        await opened.tb.messages.append({ userId }, id, [{ role: 'user', content: `of ${userId}` }])
      }
    })
    afterAll(() => opened?.close())

    const expectNobody = async () => {
      const { role, login, user } = await whoIs(system)
      expect({ role, user }).toEqual({ role: login, user: null })
    }

    test('a query without its user finds the rows of the user only; the system finds all', async () => {
      for (const table of ['threads', 'messages'] as const) {
        expect(await ownersOf(forUser('alice'), table)).toEqual(['alice'])
        expect(await ownersOf(forUser('bob'), table)).toEqual(['bob'])
        expect(await ownersOf(forUser('nobody'), table)).toEqual([])
        expect(await ownersOf(system, table)).toEqual(['alice', 'bob'])
      }
      const all = await forUser('alice').updateTable('threads').set({ title: 'mine' }).executeTakeFirst()
      expect(all.numUpdatedRows).toBe(1n)
      const { rows } = await sql`select title from ${sql.table('threads')} where user_id = 'bob'`.execute(
        system,
      )
      expect(rows).toEqual([{ title: null }])
    })

    test('a row for another user is refused, and so is the way out', async () => {
      await expect(insertFor(forUser('alice'), 'bob')).rejects.toMatchObject({ cause: { code: '42501' } })
      await insertFor(forUser('carol'), 'carol')
      await forUser('carol').deleteFrom('threads').execute()
      for (const statement of [
        sql`select * from ${sql.table('schema_revisions')}`,
        sql`create table ${sql.table(`${opened.database.schema}.mine`)} ()`,
        sql`alter table ${sql.table('threads')} disable row level security`,
      ]) {
        await expect(statement.execute(forUser('alice'))).rejects.toMatchObject({ cause: { code: '42501' } })
      }
      await expectNobody()
    })

    test('a statement has its user, with parameters or without, and leaves nothing of it', async () => {
      const { appRole } = opened.database
      expect(await whoIs(forUser('alice'))).toMatchObject({ role: appRole, user: 'alice' })
      const odd = `o'neil "; reset role; -- $1 \u{1F600}`
      expect(await whoIs(forUser(odd))).toMatchObject({ role: appRole, user: odd })
      const { rows } = await sql<{ user: string; n: number }>`
        select current_setting('threadbase.user_id') as user, ${7}::int as n`.execute(forUser('alice'))
      expect(rows).toEqual([{ user: 'alice', n: 7 }])
      await expectNobody()
    })

    test.each([
      ['while it runs', sql`select 1 / ${0}::int`, '22012'],
      ['in its words', sql`selec ${1}`, '42601'],
      ['for a table that is not there', sql`select ${1}::int from nowhere`, '42P01'],
      ['for a value', sql`select ${'x'}::text::int`, '22P02'],
    ])('a statement that fails %s says why itself, and leaves nothing', async (_, statement, code) => {
      for (let i = 0; i < 3; i++) {
        const error = await statement.execute(forUser('alice')).catch((reason: unknown) => reason)
        const { cause = error } = error as { cause?: unknown }
        expect(cause).toMatchObject({ code })
        await expectNobody()
        expect(await ownersOf(forUser('bob'))).toEqual(['bob'])
      }
    })

    test('a value that cannot be sent fails its statement only', async () => {
      const endless: Record<string, unknown> = {}
      endless.self = endless
      await expect(sql`select ${endless}::json`.execute(forUser('alice'))).rejects.toThrow(/circular/)
      expect(await whoIs(forUser('bob'))).toMatchObject({ user: 'bob' })
      await expectNobody()
    })

    test('a transaction is of its user from begin to end, whichever end', async () => {
      const { appRole } = opened.database
      await forUser('alice')
        .transaction()
        .execute(async (tx) => {
          expect(await whoIs(tx)).toMatchObject({ role: appRole, user: 'alice' })
          expect(await ownersOf(tx)).toEqual(['alice'])
        })
      await expectNobody()
      const undone = forUser('alice')
        .transaction()
        .setIsolationLevel('repeatable read')
        .execute(async (tx) => {
          await insertFor(tx, 'alice')
          throw new Undo()
        })
      await expect(undone).rejects.toBeInstanceOf(Undo)
      await expectNobody()
      const failed = forUser('alice')
        .transaction()
        .execute((tx) => sql`select 1 / ${0}::int`.execute(tx))
      await expect(failed).rejects.toThrow(/zero/)
      await expectNobody()
      expect((await opened.tb.threads.list({ userId: 'alice' })).items).toHaveLength(1)
    })

    test('many users at once on one connection: each sees its own, whatever fails in between', async () => {
      const users = Array.from({ length: 40 }, (_, n) => `user ${n}`)
      await Promise.all(users.map((userId) => opened.tb.threads.create({ userId })))
      const act = async (userId: string, n: number) => {
        const db = forUser(userId)
        for (let round = 0; round < 5; round++) {
          expect(await ownersOf(db)).toEqual([userId])
          const kind = (n + round) % 4
          if (kind === 0) await expect(insertFor(db, 'bob')).rejects.toThrow(/row-level security/)
          if (kind === 1) await expect(sql`select 1 / ${0}::int`.execute(db)).rejects.toThrow(/zero/)
          if (kind === 2) {
            const own = db.transaction().execute(async (tx) => {
              await insertFor(tx, userId)
              expect(await ownersOf(tx)).toEqual([userId])
              throw new Undo()
            })
            await expect(own).rejects.toBeInstanceOf(Undo)
          }
          if (kind === 3) expect((await ownersOf(system)).length).toBeGreaterThan(40)
        }
      }
      await Promise.all(users.map(act))
      await expectNobody()
      const { rows } = await sql<{ n: number }>`
        select count(*) as n from ${sql.table('threads')} where user_id like 'user %'`.execute(system)
      expect(rows).toEqual([{ n: 40 }])
    })

    test('more users than handles are kept', async () => {
      const first = forUser('first of many')
      for (let n = 0; n < 1_500; n++) forUser(`one of many ${n}`)
      expect(await whoIs(first)).toMatchObject({ user: 'first of many' })
      expect(await whoIs(forUser('first of many'))).toMatchObject({ user: 'first of many' })
    })

    test('appends of many users at the same time are stored, each under its own user', async () => {
      const places = await Promise.all(
        Array.from({ length: 12 }, async (_, n) => {
          const scope = { userId: `writer ${n % 6}` }
          return { scope, id: (await opened.tb.threads.create(scope)).id }
        }),
      )
      const calls = Array.from({ length: 120 }, (_, n) => {
        const { scope, id } = places[n % 12] as (typeof places)[number]
        return opened.tb.messages.append(scope, id, [{ role: 'user', content: n }])
      })
      await Promise.all(calls)
      for (const { scope, id } of places) {
        const { items } = await opened.tb.messages.list(scope, id)
        expect(items.map(({ seq }) => seq)).toEqual(Array.from({ length: 10 }, (_, i) => i + 1))
      }
    })

    test('the lookup of an append finds its message by key', async () => {
      const scope = { userId: 'long' }
      const { id } = await opened.tb.threads.create(scope)
      const { id: other } = await opened.tb.threads.create(scope)
      const messages = Array.from({ length: 500 }, (_, n) => ({
        role: 'user' as const,
        content: 'x',
        messageId: `m${n}`,
      }))
      await opened.tb.messages.appendMany(scope, [
        { threadId: id, messages },
        { threadId: other, messages },
      ])
      const { rows } = await sql<{ 'QUERY PLAN': string }>`
        explain (analyze, costs off, timing off, summary off)
        select i.n, m.seq from unnest(array['long'], array[${id}::uuid], array['m7'])
               with ordinality as i (user_id, thread_id, message_id, n)
          left join lateral (
            select m.seq from ${sql.table('messages')} m
             where m.user_id = i.user_id and greatest(m.thread_id) = greatest(i.thread_id)
               and m.message_id = i.message_id limit 1) m on true`.execute(forUser('long'))
      const plan = rows.map((row) => row['QUERY PLAN']).join('\n')
      expect(plan).toMatch(/messages_by_message_id/)
      expect(plan).toMatch(/Index Cond: .*GREATEST\(thread_id\).*message_id/)
      expect(plan).not.toMatch(/Rows Removed/)
    })

    test('what an append looks up is what the plan above is of', async () => {
      const { rows } = await sql<{ text: string }>`
        select prosrc as text from pg_proc p join pg_namespace n on n.oid = p.pronamespace
         where n.nspname = ${opened.database.schema} and proname = 'append_messages'`.execute(system)
      expect(rows[0]?.text.match(/greatest\(\w+\.thread_id\) = greatest\(i\.thread_id\)/g)).toHaveLength(2)
      expect(rows[0]?.text).not.toContain('uuid_send')
    })

    test('the grants are no difference to what the migrations make, and are given again after a downgrade', async () => {
      const migrations = await loadMigrations()
      expect(await findDrift(opened.database, migrations)).toEqual([])
      await downgrade(opened.database, migrations, 'base')
      await upgrade(opened.database, migrations)
      await expect(ownersOf(forUser('alice'))).rejects.toMatchObject({ code: 'unavailable' })
      await prepareRls(opened.database, { grant: true })
      expect(await ownersOf(forUser('alice'))).toEqual([])
      expect(await findDrift(opened.database, migrations)).toEqual([])
    })
  })
}

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
      await expect(failed).rejects.toMatchObject({ code: expect.any(String) })
      expect(began).toBe(false)
      await expect(ownersOf(database.forUser('a'))).rejects.toMatchObject({ code: expect.any(String) })
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
