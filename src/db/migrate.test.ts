import { rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { emptyCheckpoint } from '@langchain/langgraph-checkpoint'
import { sql } from 'kysely'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { runChild } from '../../test/child.ts'
import { engines, makeTempDir, newSchemaName, postgresUrl, type TestDatabase } from '../../test/harness.ts'
import { storeBesideSearch } from '../../test/search-rows.ts'
import { silentLog } from '../core/log.ts'
import type { Database } from './database.ts'
import { findDrift } from './drift.ts'
import { appliedRevisions, downgrade, requireMigrated, run, stamp, upgrade } from './migrate.ts'
import { createMigration, findMigration, loadMigrations, type Migration } from './migrations.ts'
import { openPostgres } from './postgres.ts'
import { prepareRls } from './rls.ts'

const step = (revision: string, name: string, up: string, down: string): Migration => ({
  revision,
  name,
  file: `${revision}_${name}.sql`,
  up,
  down,
  checksum: `${revision}`.padEnd(64, '0'),
})

const SMALL = [
  step(
    '0001',
    'first',
    'create table :"schema".one (n int); create table :"schema".uno (n int)',
    'drop table :"schema".uno; drop table :"schema".one',
  ),
  step('0002', 'second', 'create table :"schema".two (n int)', 'drop table :"schema".two'),
  step('0003', 'third', 'create table :"schema".three (n int)', 'drop table :"schema".three'),
]
const BROKEN = step('0004', 'broken', 'create table :"schema".four (n int); select 1 / 0', 'select 1 / 0')

const revisions = async (database: Database) =>
  (await appliedRevisions(database)).map(({ revision }) => revision)

async function tables({ db, schema }: Database): Promise<string[]> {
  const { rows } = await sql<{ name: string }>`
    select tablename::text as name from pg_tables where schemaname = ${schema} order by 1`.execute(db)
  return rows.map(({ name }) => name).filter((name) => name !== 'schema_revisions')
}

async function dropAll({ db, schema }: Database): Promise<void> {
  await sql`drop schema if exists ${sql.id(schema)} cascade`.execute(db)
}

describe.skipIf(postgresUrl === null)('a role with few rights', () => {
  const role = newSchemaName()
  const schema = newSchemaName()
  let admin: Database
  let database: Database
  let migrations: Migration[]
  beforeAll(async () => {
    migrations = await loadMigrations()
    admin = await openPostgres({ url: String(postgresUrl), schema, log: silentLog })
    await run(admin.db, `create role ${role} login password 'p'`)
    const url = new URL(String(postgresUrl))
    url.username = role
    url.password = 'p'
    database = await openPostgres({ url: url.href, schema, log: silentLog })
  })
  afterAll(async () => {
    await database?.close()
    await run(admin.db, `drop schema if exists ${schema} cascade; drop owned by ${role}; drop role ${role}`)
    await admin.close()
  })

  test('is told that it may not create the schema', async () => {
    await expect(upgrade(database, migrations)).rejects.toMatchObject({
      code: 'unavailable',
      message: expect.stringMatching(/lacks a right: permission denied for database/),
    })
  })

  test('migrates a schema that it owns, up and down, without rights on the database', async () => {
    await run(admin.db, `create schema ${schema} authorization ${role}`)
    await upgrade(database, migrations)
    await downgrade(database, migrations, 'base')
    await upgrade(database, migrations)
    await stamp(database, migrations, 'head')
    await requireMigrated(database, migrations)
  })

  test('is told what comparing needs', async () => {
    await expect(findDrift(database, migrations)).rejects.toMatchObject({
      code: 'unavailable',
      message: expect.stringMatching(/scratch schema.*grant create on database/),
    })
  })

  test('needs no right to change a schema where nothing is missing', async () => {
    await run(
      admin.db,
      `alter schema ${schema} owner to current_user;
       reassign owned by ${role} to current_user;
       grant usage on schema ${schema} to ${role};
       grant select on all tables in schema ${schema} to ${role}`,
    )
    expect(await upgrade(database, migrations)).toEqual([])
    const extra = step('9999', 'extra', 'create table :"schema".nine (n int)', 'drop table :"schema".nine')
    await expect(upgrade(database, [...migrations, extra])).rejects.toThrow(
      /lacks a right: permission denied/,
    )
  })
})

for (const engine of engines) {
  describe.skipIf(!engine.available)(`migrations on ${engine.name}`, () => {
    let opened: TestDatabase
    let database: Database
    beforeAll(async () => {
      opened = await engine.open({
        migrations: [],
        store: { index: { dims: 3, embeddings: async (texts) => texts.map(() => [1, 0, 0]), exactUpTo: 0 } },
      })
      database = opened.database
    })
    afterAll(() => opened?.close())
    beforeEach(() => dropAll(database))

    test('ours go up, down step by step, and up again, with rows in the tables', async () => {
      const migrations = await loadMigrations()
      const fill = async () => {
        const { threads, messages, configs, artifacts, files, identity } = opened.tb
        const actor = { userId: 'operator', via: 'cli' } as const
        const account = { username: 'anna', email: 'a@example.com', password: 'correct horse' }
        const { id: userId } = await identity.users.create(actor, account)
        const scope = { userId }
        await identity.users.ensure({ id: 'subject', provider: 'jwt' })
        await identity.keys.create(scope, actor, { name: 'k' })
        await identity.signIn.signIn({ login: 'anna', password: account.password }, {})
        const { id } = await threads.create(scope, { title: 'kept', meta: { a: 1 } })
        await messages.append(scope, id, [
          { role: 'user', content: 'x', messageId: 'm' },
          { role: 'tool', content: [1] },
        ])
        await configs.put(scope, id, { model: 'm' })
        await threads.fork(scope, id)
        await artifacts.create(scope, id, 'bytes', { filename: 'a.txt' })
        await files.create(scope, 'bytes', { filename: 'a.txt', temporary: true })
        await artifacts.startUpload(scope, id, { sha256: 'a'.repeat(64), size: 1 })
        await database.db
          .insertInto('blob_removals')
          .values({ sha256: 'a'.repeat(64), collector: id, until: new Date() })
          .execute()
        const { checkpointer } = opened.tb.forUser(scope.userId)
        const values = { list: [{ text: 'x'.repeat(200) }] }
        const state = await checkpointer.put(
          { configurable: { thread_id: 't' } },
          { ...emptyCheckpoint(), channel_values: values },
          { source: 'input', step: -1, parents: {} },
          { list: 1 },
        )
        await checkpointer.putWrites(state, [['x', 1]], 'task')
        await checkpointer.copyThread('t', 'gone')
        await checkpointer.deleteThread('gone')
        const { store } = opened.tb.forUser(scope.userId)
        await store.put(['notes'], 'k', { text: 'x' })
        expect(await store.search(['notes'], { query: 'x' })).toHaveLength(1)
        await opened.tb.credentials.apiKeys.put(scope, actor, 'openai', { apiKey: 'sk' })
        await opened.tb.variables.create(scope, actor, { name: 'n', value: 'v', defaultFields: ['f'] })
        const { conversations } = opened.tb
        const { id: council } = await conversations.createConversation(scope)
        await conversations.turns.begin(scope, council, { content: 'x', holder: council, leaseS: 10 })
        await database.db.insertInto('usage').values({ user_id: userId, tier: 'pro' }).execute()
        await storeBesideSearch(database.db, userId, id)
        await database.db.insertInto('erased_users').values({ user_id: 'gone' }).execute()
        await database.db.insertInto('embedding_models').values({ model: 'm' }).execute()
        for (const name of await tables(database)) {
          const { rows } = await sql`select 1 from ${sql.table(name)} limit 1`.execute(database.db)
          expect(rows, name).toHaveLength(1)
        }
      }
      for (let round = 0; round < 2; round++) {
        const up = await upgrade(database, migrations)
        expect(up.map(({ revision }) => revision)).toEqual(migrations.map(({ revision }) => revision))
        await prepareRls(database, { grant: true })
        await fill()
        expect(await findDrift(database, migrations)).toEqual([])
        await requireMigrated(database, migrations)
        for (const { revision } of migrations.toReversed()) {
          expect(await downgrade(database, migrations, '-1')).toMatchObject([{ direction: 'down', revision }])
        }
        expect(await tables(database)).toEqual([])
      }
    })

    test('upgrade goes to head, to a revision, or by steps, and tells each step', async () => {
      const told: string[] = []
      await upgrade(database, SMALL, '+1', ({ revision }) => told.push(revision))
      expect(await revisions(database)).toEqual(['0001'])
      expect(await tables(database)).toEqual(['one', 'uno'])
      await upgrade(database, SMALL, '0002', ({ revision }) => told.push(revision))
      expect(await revisions(database)).toEqual(['0001', '0002'])
      await upgrade(database, SMALL, 'head', ({ revision }) => told.push(revision))
      expect(told).toEqual(['0001', '0002', '0003'])
      expect(await upgrade(database, SMALL)).toEqual([])
      await expect(upgrade(database, SMALL, '+1')).rejects.toMatchObject({ code: 'invalid_input' })
    })

    test('downgrade goes by steps, to a revision that stays, or to base', async () => {
      await upgrade(database, SMALL)
      await downgrade(database, SMALL, '-1')
      expect(await revisions(database)).toEqual(['0001', '0002'])
      await upgrade(database, SMALL)
      const steps = await downgrade(database, SMALL, '0001')
      expect(steps.map(({ revision }) => revision)).toEqual(['0003', '0002'])
      expect(await tables(database)).toEqual(['one', 'uno'])
      await expect(downgrade(database, SMALL, '-2')).rejects.toMatchObject({ code: 'invalid_input' })
      await downgrade(database, SMALL, 'base')
      expect(await revisions(database)).toEqual([])
      expect(await tables(database)).toEqual([])
      await expect(downgrade(database, SMALL, '-1')).rejects.toMatchObject({ code: 'invalid_input' })
    })

    test('stamp writes the revision down and runs nothing', async () => {
      await stamp(database, SMALL, '0002')
      expect(await revisions(database)).toEqual(['0001', '0002'])
      expect(await tables(database)).toEqual([])
      await upgrade(database, SMALL)
      expect(await tables(database)).toEqual(['three'])
      await stamp(database, SMALL, '0001')
      expect(await revisions(database)).toEqual(['0001'])
      await stamp(database, SMALL, 'base')
      expect(await revisions(database)).toEqual([])
      await stamp(database, SMALL, 'head')
      expect(await revisions(database)).toEqual(['0001', '0002', '0003'])
    })

    test('a revision that nobody knows is not found, and nothing is done', async () => {
      await upgrade(database, SMALL, '0001')
      for (const act of [upgrade, downgrade, stamp]) {
        await expect(act(database, SMALL, 'zzzz')).rejects.toMatchObject({ code: 'not_found' })
      }
      expect(await revisions(database)).toEqual(['0001'])
    })

    test('a database that is newer than this version is unsupported', async () => {
      await upgrade(database, SMALL)
      const older = SMALL.slice(0, 2)
      await expect(upgrade(database, older)).rejects.toMatchObject({ code: 'unsupported' })
      await expect(requireMigrated(database, older)).rejects.toMatchObject({ code: 'unsupported' })
      expect(await revisions(database)).toEqual(['0001', '0002', '0003'])
    })

    test('a database that is behind is unavailable to those who do not migrate', async () => {
      await expect(requireMigrated(database, SMALL)).rejects.toMatchObject({ code: 'unavailable' })
      await upgrade(database, SMALL, '0002')
      await expect(requireMigrated(database, SMALL)).rejects.toMatchObject({ code: 'unavailable' })
      await upgrade(database, SMALL)
      await requireMigrated(database, SMALL)
    })

    test('a migration that fails is taken back whole; those before it stay', async () => {
      const migrations = [...SMALL, BROKEN]
      await expect(upgrade(database, migrations)).rejects.toThrow(/division by zero/)
      expect(await revisions(database)).toEqual(['0001', '0002', '0003'])
      expect(await tables(database)).toEqual(['one', 'three', 'two', 'uno'])
      await stamp(database, migrations, 'head')
      await expect(downgrade(database, migrations, '-1')).rejects.toThrow(/division by zero/)
      expect(await revisions(database)).toEqual(['0001', '0002', '0003', '0004'])
    })

    test('callers at the same time do each step once', async () => {
      const all = await Promise.all(Array.from({ length: 8 }, () => upgrade(database, SMALL)))
      expect(
        all
          .flat()
          .map(({ revision }) => revision)
          .sort(),
      ).toEqual(['0001', '0002', '0003'])
    })
  })
}

describe.skipIf(postgresUrl === null)('processes that start together', () => {
  test('ten of them migrate once', async () => {
    const schema = newSchemaName()
    const startAt = Date.now() + 3_000
    const children = Array.from({ length: 10 }, () =>
      runChild('migrate.ts', { url: postgresUrl, schema, startAt }),
    )
    const steps = await Promise.all(children.map((child) => child.nextLine()))
    const codes = await Promise.all(children.map(({ exited }) => exited))
    expect(codes).toEqual(Array(10).fill(0))
    // each by one of them, whichever it was
    expect(steps.flat().sort()).toEqual((await loadMigrations()).map(({ revision }) => revision))
  })
})

describe('migration files', () => {
  let directory: string
  const made: string[] = []
  beforeEach(async () => {
    directory = await makeTempDir()
    made.push(directory)
  })
  afterAll(() => Promise.all(made.map((path) => rm(path, { recursive: true, force: true }))))

  test('are read in order, with both parts', async () => {
    await writeFile(join(directory, '0002_b.sql'), '-- words\n-- up\nselect 2;\n-- down\nselect -2;\n')
    await writeFile(join(directory, '0001_a.sql'), '-- up\nselect 1;\n-- down\n')
    await writeFile(join(directory, 'README.md'), 'not SQL')
    expect(await loadMigrations(directory)).toMatchObject([
      { revision: '0001', name: 'a', up: 'select 1;', down: '' },
      { revision: '0002', name: 'b', up: 'select 2;', down: 'select -2;' },
    ])
  })

  test.each([
    ['a bad name', '1-a.sql', '-- up\n-- down\n'],
    ['no up part', '0001_a.sql', 'select 1;\n-- down\n'],
    ['no down part', '0001_a.sql', '-- up\nselect 1;\n'],
    ['its parts the wrong way round', '0001_a.sql', '-- down\n-- up\n'],
  ])('one with %s is refused by its name', async (_, file, text) => {
    await writeFile(join(directory, file), text)
    await expect(loadMigrations(directory)).rejects.toMatchObject({
      code: 'invalid_input',
      message: expect.stringContaining(file),
    })
  })

  test('two with one number are refused', async () => {
    for (const name of ['0001_a.sql', '0001_b.sql'])
      await writeFile(join(directory, name), '-- up\n-- down\n')
    await expect(loadMigrations(directory)).rejects.toThrow(/0001_b\.sql is the second/)
  })

  test('a new one has the next number and is itself a migration', async () => {
    const first = await createMigration('Add Ünïcode & "things"', directory)
    expect(first).toMatch(/0001_add_n_code_things\.sql$/)
    await createMigration('second', directory)
    expect((await loadMigrations(directory)).map(({ file }) => file)).toEqual([
      '0001_add_n_code_things.sql',
      '0002_second.sql',
    ])
    await expect(createMigration('!!!', directory)).rejects.toMatchObject({ code: 'invalid_input' })
  })

  test('one is found by its number, with or without zeros, by its name, or as head', () => {
    const migrations = [...SMALL, step('0010', 'ten', '', '')]
    expect(findMigration(migrations, '0001').name).toBe('first')
    expect(findMigration(migrations, '1').name).toBe('first')
    expect(findMigration(migrations, '10').name).toBe('ten')
    expect(findMigration(migrations, 'second').revision).toBe('0002')
    expect(findMigration(migrations, 'head').name).toBe('ten')
    for (const wrong of ['0', '', 'sec', '0005', '1e1', ' 1', '-1'])
      expect(() => findMigration(migrations, wrong), wrong).toThrow(/not known/)
  })
})
