import { sql } from 'kysely'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { engines, type TestDatabase } from '../../test/harness.ts'
import type { Database } from './database.ts'
import { findDrift } from './drift.ts'
import { run, stamp, upgrade } from './migrate.ts'
import { inSchema, loadMigrations, type Migration } from './migrations.ts'

const S = ':"schema"'

// What somebody may do to a database by hand, and the name under which it must be reported.
const CHANGES: [what: string, statements: string, object: string][] = [
  ['a dropped table', `drop table ${S}.configs`, 'table configs'],
  ['an extra table', `create table ${S}.extra (n int)`, 'table extra'],
  ['a view', `create view ${S}.peek as select 1 as n`, 'table peek'],
  ['a dropped column', `alter table ${S}.messages drop column tool_name`, 'column messages.tool_name'],
  ['an extra column', `alter table ${S}.threads add column extra int`, 'column threads.extra'],
  [
    'another collation',
    `alter table ${S}.messages alter column tool_name type text collate "C"`,
    'column messages.tool_name',
  ],
  [
    'no collation',
    `alter table ${S}.messages alter column message_id type text collate "default"`,
    'column messages.message_id',
  ],
  ['another type', `alter table ${S}.threads alter column title type varchar(500)`, 'column threads.title'],
  [
    'another precision',
    `alter table ${S}.threads alter column ended_at type timestamptz(6)`,
    'column threads.ended_at',
  ],
  [
    'a dropped not null',
    `alter table ${S}.messages alter column digest drop not null`,
    'column messages.digest',
  ],
  ['another default', `alter table ${S}.threads alter column kind set default 'flow'`, 'column threads.kind'],
  ['a dropped default', `alter table ${S}.messages alter column meta drop default`, 'column messages.meta'],
  ['a dropped index', `drop index ${S}.threads_by_update`, 'index threads_by_update'],
  ['an extra index', `create index extra_index on ${S}.threads (title)`, 'index extra_index'],
  [
    'an index with other columns',
    `drop index ${S}.threads_by_update; create index threads_by_update on ${S}.threads (user_id, created_at)`,
    'index threads_by_update',
  ],
  [
    'an index that is unique no more',
    `drop index ${S}.messages_by_id; create index messages_by_id on ${S}.messages (user_id, id)`,
    'index messages_by_id',
  ],
  [
    'a changed constraint',
    `alter table ${S}.threads drop constraint threads_title_check, add constraint threads_title_check check (char_length(title) <= 600)`,
    'constraint threads.threads_title_check',
  ],
  [
    'a foreign key that does something else',
    `alter table ${S}.configs drop constraint configs_user_id_thread_id_fkey,
       add constraint configs_user_id_thread_id_fkey foreign key (user_id, thread_id) references ${S}.threads (user_id, id)`,
    'constraint configs.configs_user_id_thread_id_fkey',
  ],
  ['a dropped policy', `drop policy own_rows on ${S}.messages`, 'policy messages.own_rows'],
  [
    'a policy that lets all through',
    `alter policy own_rows on ${S}.messages using (true)`,
    'policy messages.own_rows',
  ],
  ['an extra policy', `create policy all_rows on ${S}.messages using (true)`, 'policy messages.all_rows'],
  [
    'row level security switched off',
    `alter table ${S}.messages disable row level security`,
    'table messages',
  ],
  ['row level security forced', `alter table ${S}.messages force row level security`, 'table messages'],
  [
    'another function body',
    `do $$ begin execute replace(pg_get_functiondef('${S}.append_messages'::regproc), 'no_parent', 'orphan'); end $$`,
    'function append_messages',
  ],
  [
    'another function setting',
    `do $$ begin execute format('alter function %s reset enable_seqscan', '${S}.append_messages'::regproc); end $$`,
    'function append_messages',
  ],
  [
    'an extra function',
    `create function ${S}.extra() returns int language sql as 'select 1'`,
    'function extra()',
  ],
  [
    'a trigger',
    `create trigger nosy before update on ${S}.threads for each row execute function suppress_redundant_updates_trigger()`,
    'trigger threads.nosy',
  ],
  ['a type', `create type ${S}.mood as enum ('good', 'bad')`, 'type mood'],
  ['a sequence', `create sequence ${S}.counter`, 'sequence counter'],
]

for (const engine of engines) {
  describe.skipIf(!engine.available)(`drift on ${engine.name}`, () => {
    let opened: TestDatabase
    let database: Database
    let migrations: Migration[]
    beforeAll(async () => {
      migrations = await loadMigrations()
      opened = await engine.open()
      database = opened.database
    })
    afterAll(() => opened?.close())
    const change = (text: string) => run(database.db, inSchema(text, database.schema))

    test('a migrated database has none, and looking leaves nothing behind', async () => {
      expect(await findDrift(database, migrations)).toEqual([])
      const { rows } =
        await sql`select nspname from pg_namespace where nspname like 'threadbase_check_%'`.execute(
          database.db,
        )
      expect(rows).toEqual([])
    })

    test.each(CHANGES)('%s is found', async (_, statements, object) => {
      try {
        await change(statements)
        const found = await findDrift(database, migrations)
        const named = found.filter((difference) => difference.object.startsWith(object))
        expect(named.length, JSON.stringify(found)).toBeGreaterThan(0)
        // what is reported beside it belongs to it: a table's columns, a column's constraint
        const subject = object.replace(/^\w+ /, '').replace(/[.(].*/, '')
        for (const difference of found) expect(JSON.stringify(difference)).toContain(subject)
      } finally {
        await change(`drop schema ${S} cascade`)
        await upgrade(database, migrations)
      }
    })

    test('an empty database lacks everything, and says so for each', async () => {
      await change(`drop schema ${S} cascade`)
      const found = await findDrift(database, migrations)
      const objects = found.map(({ object }) => object)
      expect(objects).toEqual(
        expect.arrayContaining(['table threads', 'index messages_by_id', 'revision 0001']),
      )
      expect(found.every(({ expected, actual }) => expected !== undefined && actual === undefined)).toBe(true)
      await upgrade(database, migrations)
    })

    test('a revision that is not written down, or made from another file', async () => {
      await stamp(database, migrations, 'base')
      expect((await findDrift(database, migrations)).map(({ object }) => object)).toEqual(
        migrations.map(({ revision }) => `revision ${revision}`),
      )
      await stamp(database, migrations, 'head')
      const edited = migrations.map((migration) => ({ ...migration, checksum: 'f'.repeat(64) }))
      expect(await findDrift(database, edited)).toHaveLength(migrations.length)
    })

    // also names that are short, that are aliases in our own function, or that need quotes
    test.each(['m', 'messages', 'Quoted name'])('the schema may be called %s', async (schema) => {
      const other = await engine.open({ schema })
      expect(other.database.schema).toBe(schema)
      expect(await findDrift(other.database, migrations)).toEqual([])
      await other.close()
    })
  })
}
