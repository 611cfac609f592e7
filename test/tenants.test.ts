import { randomBytes, randomUUID } from 'node:crypto'
import { type Kysely, sql, type Transaction } from 'kysely'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Schema } from '../src/db/schema.ts'
import { findTenantProblems, SHARED_TABLES } from './catalog-rules.ts'
import { engines, type TestDatabase } from './harness.ts'
import { storeEverything, TEST_VECTORS } from './user-rows.ts'

const BAD_TABLES: [what: string, statement: (s: string) => string, problem: RegExp][] = [
  ['no user', (s) => `create table ${s}.bad (id uuid primary key)`, /bad has no user_id/],
  [
    'a nullable user',
    (s) => `create table ${s}.bad (id int primary key, user_id text)`,
    /bad\.user_id is text$/m,
  ],
  [
    'a user of another type',
    (s) => `create table ${s}.bad (user_id uuid primary key)`,
    /bad\.user_id is uuid not null/,
  ],
  ['no primary key', (s) => `create table ${s}.bad (user_id text not null)`, /no primary key/],
  [
    'a key that begins with something else',
    (s) => `create table ${s}.bad (user_id text not null, id int, primary key (id, user_id))`,
    /unique index bad_pkey begins with id/,
  ],
  [
    'a unique index without the user',
    (s) => `create table ${s}.bad (user_id text primary key, name text unique)`,
    /unique index bad_name_key begins with name/,
  ],
  [
    'a unique index on an expression',
    (s) =>
      `create table ${s}.bad (user_id text primary key); create unique index odd on ${s}.bad (lower(user_id))`,
    /unique index odd begins with lower/,
  ],
  [
    'a reference without the user',
    (s) =>
      `create table ${s}.good (user_id text, id int unique, primary key (user_id, id));
       create table ${s}.bad (user_id text primary key, good_id int references ${s}.good (id))`,
    /bad: foreign key bad_good_id_fkey begins with good_id/,
  ],
  [
    'a reference with its columns crossed',
    (s) =>
      `create table ${s}.good (user_id text, id text, unique (id, user_id), primary key (user_id, id));
       create table ${s}.bad (user_id text primary key, good_id text,
         foreign key (user_id, good_id) references ${s}.good (id, user_id))`,
    /bad: foreign key .* begins with user_id/,
  ],
  [
    'no row level security',
    (s) => `create table ${s}.bad (user_id text primary key)`,
    /bad has row level security off/,
  ],
  [
    'no policy',
    (s) => `create table ${s}.bad (user_id text primary key); alter table ${s}.bad enable row level security`,
    /bad has no policy/,
  ],
]

class Undo extends Error {}

for (const engine of engines) {
  describe.skipIf(!engine.available)(`tenant first, on ${engine.name}`, () => {
    let opened: TestDatabase
    let db: Kysely<Schema>
    let s: string
    beforeAll(async () => {
      opened = await engine.open({ store: TEST_VECTORS })
      db = opened.database.db
      s = opened.database.schema
    })
    afterAll(() => opened?.close())
    /** Runs statements and takes them back. */
    const tryOut = async (act: (tx: Transaction<Schema>) => Promise<void>) => {
      const done = db.transaction().execute(async (tx) => {
        await act(tx)
        throw new Undo()
      })
      await expect(done).rejects.toBeInstanceOf(Undo)
    }

    test('every table of ours keeps the rule', async () => {
      expect(await findTenantProblems(db, s)).toEqual([])
      const { rows } = await sql`select from pg_tables where schemaname = ${s}`.execute(db)
      expect(rows.length).toBeGreaterThanOrEqual(4)
    })

    test.each(BAD_TABLES)('a table with %s is noticed', async (_, statement, problem) => {
      await tryOut(async (tx) => {
        await sql.raw(`create schema scratch; ${statement('scratch')}`).execute(tx)
        const problems = await findTenantProblems(tx, 'scratch')
        expect(problems.join('\n')).toMatch(problem)
      })
    })

    test('the database refuses a row that references a row of another user', async () => {
      const { id } = await opened.tb.threads.create({ userId: 'A' }, { id: randomUUID() })
      const bytes = await opened.tb.artifacts.create({ userId: 'A' }, id, 'bytes')
      const rows = [
        sql`insert into ${sql.table('messages')} (user_id, thread_id, seq, id, role, content, digest)
            values ('B', ${id}::uuid, 1, ${randomUUID()}::uuid, 'user', '"x"', '')`,
        sql`insert into ${sql.table('configs')} (user_id, thread_id) values ('B', ${id}::uuid)`,
        sql`insert into ${sql.table('artifacts')} (user_id, id, thread_id, sha256, filename, mime, size)
            values ('B', ${randomUUID()}::uuid, ${id}::uuid, ${bytes.sha256}, 'a', 'text/plain', 5)`,
        sql`insert into ${sql.table('uploads')} (user_id, id, thread_id, object_key, sha256, size, entry, expires_at)
            values ('B', ${randomUUID()}::uuid, ${id}::uuid, 'k', ${bytes.sha256}, 5, '{}', now())`,
        sql`insert into ${sql.table('threads')} (user_id, id, forked_from) values ('B', ${randomUUID()}::uuid, ${id}::uuid)`,
      ]
      for (const row of rows) await expect(row.execute(db)).rejects.toMatchObject({ code: '23503' })
    })

    test('a role that is not the owner sees and writes the rows of its user only', async () => {
      const role = `tb_reader_${randomBytes(4).toString('hex')}`
      for (const userId of ['rls-a', 'rls-b']) {
        await storeEverything(opened, userId)
        // last: nothing of the user is stored after that
        await db.insertInto('erased_users').values({ user_id: userId }).execute()
      }
      const { rows } = await sql<{ name: string }>`
        select tablename::text as name from pg_tables where schemaname = ${s} and tablename <> 'schema_revisions'`.execute(
        db,
      )
      await tryOut(async (tx) => {
        await sql
          .raw(`create role ${role}; grant usage on schema ${s} to ${role};
          grant select, insert, update, delete on all tables in schema ${s} to ${role}; set local role ${role}`)
          .execute(tx)
        for (const { name } of rows) {
          // of the tenants themselves it is the id; what belongs to nobody shows nothing
          const owner = SHARED_TABLES.has(name) ? sql`'all'` : sql.ref(name === 'users' ? 'id' : 'user_id')
          const users = async () => {
            const found = await sql<{
              owner: string
            }>`select distinct ${owner} as owner from ${sql.table(`${s}.${name}`)}`.execute(tx)
            return found.rows.map((row) => row.owner)
          }
          await sql`set local threadbase.user_id = 'rls-a'`.execute(tx)
          expect(await users(), name).toEqual(SHARED_TABLES.has(name) ? [] : ['rls-a'])
          await sql`set local threadbase.user_id = ''`.execute(tx)
          expect(await users(), name).toEqual([])
        }
        await sql`set local threadbase.user_id = 'rls-a'`.execute(tx)
        const changed =
          await sql`update ${sql.table('threads')} set title = 'mine' where user_id like 'rls-%'`.execute(tx)
        expect(changed.numAffectedRows).toBe(2n)
        const foreign = sql`insert into ${sql.table('threads')} (user_id, id) values ('rls-b', ${randomUUID()}::uuid)`
        await expect(foreign.execute(tx)).rejects.toMatchObject({ cause: { code: '42501' } })
      })
    })

    test('such a role reads accounts, sessions and the audit log of its user, and changes none', async () => {
      const userId = 'rls-reader'
      await opened.tb.identity.users.ensure({ id: userId, provider: 'proxy' })
      await opened.tb.identity.keys.create({ userId }, { userId, via: 'library' }, { name: 'k' })
      await sql`insert into ${sql.table('sessions')} (user_id, id, expires_at)
                values (${userId}, ${randomUUID()}::uuid, now() + interval '1 day')`.execute(db)
      const role = `tb_reader_${randomBytes(4).toString('hex')}`
      const id = sql`${randomUUID()}::uuid`
      const changes: [table: string, update: string, insert: ReturnType<typeof sql>][] = [
        ['users', 'is_superuser = true', sql`(id, provider) values ('rls-new', 'local')`],
        ['sessions', 'revoked_at = null', sql`(user_id, id, expires_at) values (${userId}, ${id}, now())`],
        [
          'audit_log',
          "action = 'nothing'",
          sql`(user_id, id, actor_id, via, action) values (${userId}, ${id}, 'x', 'cli', 'data_read')`,
        ],
      ]
      for (const [name, update, insert] of changes) {
        const table = sql.table(name)
        await tryOut(async (tx) => {
          await sql
            .raw(`create role ${role}; grant usage on schema ${s} to ${role};
            grant select, insert, update, delete on all tables in schema ${s} to ${role}; set local role ${role};
            set local threadbase.user_id = '${userId}'`)
            .execute(tx)
          expect((await sql`select from ${table}`.execute(tx)).rows, name).toHaveLength(1)
          const updated = await sql`update ${table} set ${sql.raw(update)}`.execute(tx)
          const deleted = await sql`delete from ${table}`.execute(tx)
          expect([updated.numAffectedRows, deleted.numAffectedRows], name).toEqual([0n, 0n])
          const inserted = sql`insert into ${table} ${insert}`.execute(tx)
          await expect(inserted, name).rejects.toMatchObject({ cause: { code: '42501' } })
        })
      }
    })

    test('without any user set, such a role sees nothing', async () => {
      await opened.tb.threads.create({ userId: 'someone' })
      const role = `tb_reader_${randomBytes(4).toString('hex')}`
      await tryOut(async (tx) => {
        await sql
          .raw(`create role ${role}; grant usage on schema ${s} to ${role};
          grant select on all tables in schema ${s} to ${role}; set local role ${role}`)
          .execute(tx)
        expect((await sql`select from ${sql.table('threads')}`.execute(tx)).rows).toEqual([])
      })
    })
  })
}
