import { HumanMessage } from '@langchain/core/messages'
import { type CompiledQuery, type Kysely, sql } from 'kysely'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { engines, type TestDatabase } from '../../test/harness.ts'
import { type Db, type Schema, t } from '../db/schema.ts'
import * as repo from './repo.ts'
import { ThreadbaseSaver } from './service.ts'
import * as upkeep from './upkeep/repo.ts'

const USER = 'planner'
const LISTED = 300
const TABLES = ['checkpoints', 'checkpoint_blobs', 'checkpoint_writes']

/** Rows in each table, beside those of one thread that is looked at. */
const SIZES: Record<string, number> = { pglite: 20_000, postgres: 100_000 }

type Reads = { scans: number; rows: number }
type Plan = Record<string, unknown> & { Plans?: Plan[] }

class RolledBack extends Error {}

async function rolledBack(db: Kysely<Schema>, work: (tx: Db) => Promise<unknown>): Promise<void> {
  const done = db.transaction().execute(async (tx) => {
    await work(tx)
    throw new RolledBack()
  })
  await done.catch((error) => {
    if (!(error instanceof RolledBack)) throw error
  })
}

/** What was read so far in this transaction, in functions as well, where no `explain` looks. */
async function countReads(tx: Db, schema: string): Promise<Reads> {
  const { rows } = await sql<Reads>`
    select sum(seq_scan)::int as scans, sum(seq_tup_read + coalesce(idx_tup_fetch, 0))::int as rows
      from pg_stat_xact_user_tables
     where schemaname = ${schema} and relname = any (${sql.val(`{${TABLES.join()}}`)}::text[])`.execute(tx)
  return rows[0] as Reads
}

/** Sequential scans, and rows that were fetched, by some work; nothing of it stays. */
async function readsOf(
  db: Kysely<Schema>,
  schema: string,
  work: (tx: Db) => Promise<unknown>,
): Promise<Reads> {
  let reads: Reads = { scans: 0, rows: 0 }
  await rolledBack(db, async (tx) => {
    const before = await countReads(tx, schema)
    await work(tx)
    const after = await countReads(tx, schema)
    reads = { scans: after.scans - before.scans, rows: after.rows - before.rows }
  })
  return reads
}

/** The indexes that a statement is planned to use, and whether any table is read as a whole. */
async function explain(db: Kysely<Schema>, work: (db: Db) => Promise<unknown>): Promise<string[]> {
  const sent: CompiledQuery[] = []
  const recording = db.withPlugin({
    transformQuery({ node, queryId }) {
      sent.push(db.getExecutor().compileQuery(node, queryId))
      return node
    },
    transformResult: async ({ result }) => result,
  })
  await rolledBack(recording, work)
  const used = new Set<string>()
  const visit = (plan: Plan) => {
    if (plan['Index Name'] !== undefined) used.add(String(plan['Index Name']))
    if (plan['Node Type'] === 'Seq Scan') used.add(`seq scan of ${plan['Relation Name']}`)
    for (const inner of plan.Plans ?? []) visit(inner)
  }
  for (const query of sent) {
    await rolledBack(db, async (tx) => {
      const { rows } = await tx.executeQuery<{ 'QUERY PLAN': { Plan: Plan }[] }>({
        ...query,
        sql: `explain (analyze, format json) ${query.sql}`,
      })
      visit(rows[0]?.['QUERY PLAN'][0]?.Plan as Plan)
    })
  }
  return [...used].sort()
}

for (const engine of engines) {
  describe.skipIf(!engine.available)(`plans of checkpoints on ${engine.name}`, () => {
    const size = SIZES[engine.name] as number
    let opened: TestDatabase
    let db: Kysely<Schema>
    let newest: string
    const messages = Array.from(
      { length: LISTED },
      (_, i) => new HumanMessage({ id: `m${i}`, content: `message ${i} `.padEnd(200, 'lorem ') }),
    )
    const config = (id?: string) => ({
      configurable: { thread_id: 'thread', checkpoint_ns: '', checkpoint_id: id },
    })
    const on = (tx: Db) => new ThreadbaseSaver({ forUser: () => tx as Kysely<Schema> }, { userId: USER })
    const put = (saver: ThreadbaseSaver, step: number, list: unknown[]) => {
      const id = `2${String(step).padStart(35, '0')}`
      const checkpoint = {
        v: 4,
        id,
        ts: new Date().toISOString(),
        channel_values: { messages: list },
        channel_versions: { messages: step },
        versions_seen: {},
      }
      const parent = step === 0 ? undefined : `2${String(step - 1).padStart(35, '0')}`
      const metadata = { source: 'loop' as const, step, parents: {}, run_id: `run ${Math.floor(step / 10)}` }
      return saver.put(config(parent), checkpoint, metadata, { messages: step })
    }

    beforeAll(async () => {
      opened = await engine.open()
      const system = opened.database.db
      db = opened.database.forUser(USER)
      for (const table of TABLES)
        await sql`alter table ${sql.table(table)} set (autovacuum_enabled = off)`.execute(system)
      // a thousand threads of this user
      await sql`
        insert into ${t.checkpoints} (user_id, thread_id, checkpoint_ns, checkpoint_id, v, channels, roots, metadata, codec, record)
        select ${USER}, 'other ' || i % 1000, '', '1' || lpad(i::text, 35, '0'), 4, '{a}', array[gen_random_uuid()],
               jsonb_build_object('step', i, 'run_id', 'other run ' || i / 10), 0, '{}'
          from generate_series(1, ${size}::int) i`.execute(system)
      await sql`
        insert into ${t.checkpointBlobs} (user_id, thread_id, hash, type, codec, data)
        select ${USER}, 'other ' || i % 1000, gen_random_uuid(), 'json', 0, '1'
          from generate_series(1, ${size}::int) i`.execute(system)
      await sql`
        insert into ${t.checkpointWrites} (user_id, thread_id, checkpoint_ns, checkpoint_id, task_id, idx, task_path, channel,
                                       type, codec, data)
        select ${USER}, 'other ' || i % 1000, '', '1' || lpad(i::text, 35, '0'), 't', 0, '', 'a', 'json', 0, '1'
          from generate_series(1, ${size}::int) i`.execute(system)
      const saver = new ThreadbaseSaver(opened.database, { userId: USER })
      for (let step = 0; step < 30; step++) await put(saver, step, messages.slice(0, LISTED - 30 + step))
      newest = `2${String(29).padStart(35, '0')}`
      for (let step = 0; step < 30; step++)
        await saver.putWrites(config(`2${String(step).padStart(35, '0')}`), [['a', 1]], 'task')
    })
    afterAll(() => opened?.close())

    // as rows lie, and as a server that has looked at them plans
    for (const analyzed of [false, true]) {
      describe(analyzed ? 'with statistics' : 'without statistics', () => {
        beforeAll(async () => {
          if (analyzed)
            for (const table of TABLES) await sql`analyze ${sql.table(table)}`.execute(opened.database.db)
        })

        test.each<[string, number, (tx: Db) => Promise<unknown>]>([
          [
            'put by a process that knows nothing of the thread',
            LISTED + 100,
            (tx) => put(on(tx), 30, messages),
          ],
          ['getTuple', LISTED + 50, (tx) => on(tx).getTuple(config())],
          ['getTuple of one that is named', LISTED + 50, (tx) => on(tx).getTuple(config(newest))],
          ['putWrites', 5, (tx) => on(tx).putWrites(config(newest), [['a', 2]], 'other task')],
          [
            'list',
            LISTED + 100,
            async (tx) => {
              for await (const _ of on(tx).list(config(), { limit: 10 }));
            },
          ],
          ['threads of runs', 30, (tx) => upkeep.listThreadIds(tx, USER, ['run 1', 'other run 7'])],
          ['hide runs', 20, (tx) => upkeep.hideCheckpoints(tx, USER, 'thread', { runIds: ['run 1'] })],
          ['hide old ones', 40, (tx) => upkeep.hideCheckpoints(tx, USER, 'thread', { keepLatest: 1 })],
          [
            'remove what is hidden',
            300,
            async (tx) => {
              await upkeep.lockThread(tx, USER, 'thread')
              await upkeep.hideCheckpoints(tx, USER, 'thread', { keepLatest: 1 })
              await upkeep.removeHidden(tx, USER, 'thread', 60)
            },
          ],
          [
            'sweep',
            900,
            async (tx) => {
              await upkeep.lockThread(tx, USER, 'thread')
              await upkeep.sweepBlobs(tx, USER, 'thread')
            },
          ],
          ['deleteThread', 500, (tx) => upkeep.deleteThread(tx, USER, 'thread', 60)],
        ])('%s reads the rows of its thread and no others', async (_, most, work) => {
          const reads = await readsOf(db, opened.database.schema, work)
          expect(reads.scans, JSON.stringify(reads)).toBe(0)
          expect(reads.rows).toBeLessThanOrEqual(most)
        })

        test('the statements are planned with the indexes that are for them', async () => {
          const key = 'checkpoints_pkey'
          expect(await explain(db, (tx) => upkeep.listThreadIds(tx, USER, ['run 1']))).toEqual([
            'checkpoints_of_run',
          ])
          const query = { userId: USER, threadId: 'thread', ns: '', limit: 10 }
          const list = await explain(db, (tx) => repo.readCheckpoints(tx, query))
          expect(list).toEqual([key, 'checkpoint_writes_pkey'].sort())
          expect(
            await explain(db, (tx) => upkeep.hideCheckpoints(tx, USER, 'thread', { keepLatest: 1 })),
          ).toEqual([key])
        })
      })
    }
  })
}
