import { sql } from 'kysely'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { engines, postgresUrl, type TestDatabase } from '../../test/harness.ts'
import { explain, type Plan } from '../../test/plans.ts'
import { vectorOf } from '../../test/word-embedder.ts'
import { silentLog } from '../core/log.ts'
import { realArray } from '../db/arrays.ts'
import type { Db } from '../db/schema.ts'
import type { Meaning } from './meaning/repo.ts'
import { readQuery } from './query.ts'
import * as repo from './repo.ts'
import type { SearchMethod } from './schema.ts'
import { prepareSearch } from './service.ts'
import type { Filters, Text } from './text/repo.ts'
import { prepareVectors } from './vectors/service.ts'

const USERS = 200
const userOf = (n: number) => `user-${n}`
const PAGE = { limit: 21, after: undefined }

/** Each way in which messages are read, with the index. */
function scans(plan: Plan): string[] {
  const isOwn = plan['Relation Name'] === 'messages'
  const inner = (plan.Plans ?? []).flatMap(scans)
  const bitmap = plan['Node Type'] === 'Bitmap Index Scan' ? [`bitmap ${plan['Index Name']}`] : []
  return [...(isOwn ? [`${plan['Node Type']} ${plan['Index Name'] ?? ''}`.trim()] : []), ...bitmap, ...inner]
}

/** Rows of messages that were read, in vain or not. */
function countRead(plan: Plan): number {
  const loops = Number(plan['Actual Loops'] ?? 0)
  const own =
    plan['Relation Name'] === 'messages'
      ? loops *
        (Number(plan['Actual Rows']) +
          Number(plan['Rows Removed by Filter'] ?? 0) +
          Number(plan['Rows Removed by Index Recheck'] ?? 0))
      : 0
  return (plan.Plans ?? []).reduce((sum, inner) => sum + countRead(inner), own)
}

for (const engine of engines) {
  describe.skipIf(!engine.available)(`plans of search on ${engine.name}`, () => {
    // the embedded store has one user, and takes its time
    const rows = engine.name === 'postgres' ? 100_000 : 6_000
    const mine = 2_000
    let opened: TestDatabase
    const filters = (more: Partial<Filters> = {}): Filters => ({
      ...{
        userId: userOf(1),
        isBound: opened.database.rls === 'enforce',
        includeArchived: false,
        without: null,
        asOf: null,
      },
      ...{ threadId: undefined, kind: undefined, role: undefined, since: undefined, until: undefined },
      ...more,
    })
    const text = (q: string, method: SearchMethod = 'words'): Text => ({
      ...readQuery(q),
      ...{ text: q, method, trigrams: { schema: 'public' } },
    })
    const meaning: Meaning = {
      ...{ vector: vectorOf('common boat'), model: 'words', depth: 21, after: undefined, exactUpTo: 5_000 },
      space: {
        ...{ available: true, schema: 'public', version: '0.8.0' },
        iterates: true,
        probes: 0,
        index: 'none',
      },
    }
    const plansOf = async (work: (db: Db) => Promise<unknown>) => {
      const plans = await explain(opened.database.forUser(userOf(1)), work)
      expect(plans).toHaveLength(1)
      const [plan] = plans as [Plan]
      return { plan, ways: scans(plan), told: JSON.stringify(plan, null, 1) }
    }
    beforeAll(async () => {
      opened = await engine.open({ background: false })
      const { database } = opened
      await prepareSearch(database, { language: 'english', change: true }, silentLog)
      await prepareVectors(database, { index: 'hnsw', change: true }, silentLog)
      await sql`
        insert into ${sql.table('threads')} (user_id, id)
        select 'user-' || u, gen_random_uuid() from generate_series(0, ${USERS - 1}::int) u`.execute(
        database.db,
      )
      const words = Array.from({ length: 50 }, (_, n) => vectorOf(`common word${n}`))
      const numbers = Float32Array.from(words.flatMap((vector) => [...vector]))
      // vectors of one user alone: it is the number of rows that plans go by
      await sql`
        insert into ${sql.table('messages')} (user_id, thread_id, seq, id, role, content, digest, words, embedding_model, embedding)
        select th.user_id, th.id, n, gen_random_uuid(), 'user', to_json(x.text), '',
               ${sql.table('words_of')}(th.user_id, x.text), 'words',
               case when th.user_id = ${userOf(1)} then (a.numbers)[n % 50 * 384 + 1 : (n % 50 + 1) * 384]::vector end
          from (select ${realArray(numbers)}::real[] as numbers offset 0) a, generate_series(1, ${rows}::int) n
          join ${sql.table('threads')} th
            on th.user_id = 'user-' || case when n % ${rows / mine}::int = 0 then 1 else n % ${USERS}::int end,
               lateral (select 'common word' || n % 50 || ' rare' || n / ${rows / mine}::int as text) x`.execute(
        database.db,
      )
      if (engine.name === 'postgres') await sql`vacuum analyze ${sql.table('messages')}`.execute(database.db)
    })
    afterAll(() => opened?.close())

    const byWords = (q: string, more: Partial<Filters> = {}, method?: SearchMethod) =>
      plansOf((db) => repo.searchText(db, text(q, method), filters(more), PAGE))

    test.each<[q: string, method: SearchMethod, most: number]>([
      // a page of hits is read again for its snippets; whether a thousand have the words before the last is counted
      ['rare77', 'words', 1_040],
      ['common rare77', 'words', 1_040],
      ['rare77 comm', 'words', 40],
      ['commo rare7', 'words', 400],
      ['common', 'words', 2_700],
      ['rare77 nothing', 'any', 40],
      ['ommon', 'substring', 2_700],
      ['comon', 'similar', 2_700],
    ])('%s by %s reads the rows of one user at most', async (q, method, most) => {
      const { plan, ways, told } = await byWords(q, {}, method)
      expect(ways.join(), told).not.toContain('Seq Scan')
      // row level security keeps the index of words from being asked: it is a walk over the user's rows
      if (opened.database.rls === 'off' && (method === 'words' || method === 'any')) {
        expect(ways, told).toContain('bitmap messages_by_words')
        expect(countRead(plan), told).toBeLessThanOrEqual(most)
      } else expect(countRead(plan), told).toBeLessThanOrEqual(6_000)
    })

    test('of a thread it reads that thread for parts of words', async () => {
      const { ways, told } = await byWords(
        'ommon',
        { threadId: opened.database.schema && crypto.randomUUID() },
        'substring',
      )
      expect(ways.join(), told).not.toContain('Seq Scan')
      expect(ways.join(), told).toContain('messages_pkey')
    })

    test.each(['semantic', 'hybrid'])('few are compared one by one: %s', async (mode) => {
      const { ways, told } = await plansOf((db) =>
        mode === 'semantic'
          ? repo.searchMeaning(db, text('common boat', 'any'), meaning, filters(), PAGE)
          : repo.searchBoth(db, text('common boat', 'any'), meaning, filters(), PAGE),
      )
      expect(ways.join(), told).not.toContain('Seq Scan')
    })
  })
}

describe.skipIf(postgresUrl === null)('plans of search by meaning for many', () => {
  const ROWS = 20_000
  let opened: TestDatabase
  beforeAll(async () => {
    opened = await (engines[1] as (typeof engines)[number]).open({ background: false })
    const { db } = opened.database
    await prepareVectors(opened.database, { index: 'hnsw', change: true }, silentLog)
    await sql`drop index ${sql.table(`${opened.database.schema}.messages_by_embedding`)}`.execute(db)
    await sql`
      insert into ${sql.table('threads')} (user_id, id)
      select 'user-' || u, gen_random_uuid() from generate_series(0, 19) u`.execute(db)
    await sql`
      insert into ${sql.table('messages')} (user_id, thread_id, seq, id, role, content, digest, words, embedding_model, embedding)
      select th.user_id, th.id, n, gen_random_uuid(), 'user', '"x"', '', '', 'words',
             array(select random() - 0.5 from generate_series(1, 384) where n > 0)::real[]::vector
        from generate_series(1, ${ROWS}::int) n
        join ${sql.table('threads')} th on th.user_id = 'user-' || n % 20`.execute(db)
    // a poor graph is made in no time
    await sql`
      create index messages_by_embedding on ${sql.table('messages')} using hnsw (embedding vector_cosine_ops)
        with (m = 4, ef_construction = 8)`.execute(db)
    await sql`vacuum analyze ${sql.table('messages')}`.execute(db)
  })
  afterAll(() => opened?.close())

  test('the index is asked, and gives enough', async () => {
    const text: Text = { ...readQuery('boat'), text: 'boat', method: 'words', trigrams: undefined }
    const of: Filters = {
      ...{
        userId: userOf(1),
        isBound: opened.database.rls === 'enforce',
        includeArchived: false,
        without: null,
        asOf: null,
      },
      ...{ threadId: undefined, kind: undefined, role: undefined, since: undefined, until: undefined },
    }
    const meaning: Meaning = {
      ...{ vector: vectorOf('boat'), model: 'words', depth: 21, after: undefined, exactUpTo: 500 },
      space: {
        ...{ available: true, schema: 'public', version: '0.8.0', iterates: true, probes: 0, index: 'hnsw' },
      },
    }
    const db = opened.database.forUser(userOf(1))
    expect(await repo.searchMeaning(db, text, meaning, of, PAGE)).toHaveLength(21)
    const [plan] = await explain(db, (on) => repo.searchMeaning(on, text, meaning, of, PAGE))
    const told = JSON.stringify(plan, null, 1)
    expect(scans(plan as Plan).join(), told).not.toContain('Seq Scan')
    if (opened.database.rls === 'off')
      expect(scans(plan as Plan), told).toContain('Index Scan messages_by_embedding')
    // one plan for all users reads all rows of all of them: it is made for each
    const prepared = await opened.database.db.connection().execute(async (one) => {
      await repo.searchMeaning(one, text, meaning, of, PAGE)
      return await sql`select from pg_prepared_statements where statement like '%search.semantic%from%'`.execute(
        one,
      )
    })
    expect(prepared.rows.length).toBe(0)
  })
})
