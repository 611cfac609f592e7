import { type Kysely, sql } from 'kysely'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { engines, type TestDatabase } from '../../test/harness.ts'
import { insertFor, ownersOf, whoIs } from '../../test/who-is.ts'
import { findDrift } from './drift.ts'
import { downgrade, upgrade } from './migrate.ts'
import { loadMigrations } from './migrations.ts'
import { prepareRls } from './rls.ts'
import type { Schema } from './schema.ts'

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
