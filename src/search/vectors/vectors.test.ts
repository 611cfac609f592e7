import { sql } from 'kysely'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { newTestEmbedder } from '../../../test/embedders.ts'
import {
  engines,
  newSchemaName,
  postgresUrl,
  recordingLog,
  type TestDatabase,
} from '../../../test/harness.ts'
import { createOwnDatabase, type OwnDatabase } from '../../../test/postgres-databases.ts'
import { findDrift } from '../../db/drift.ts'
import { downgrade, upgrade } from '../../db/migrate.ts'
import { loadMigrations } from '../../db/migrations.ts'
import { openPostgres } from '../../db/postgres.ts'
import { prepareRls } from '../../db/rls.ts'
import { openThreadbase } from '../../open-threadbase.ts'
import type { Threadbase } from '../../threadbase.ts'
import { createVectors, prepareVectors } from './service.ts'

const HNSW = { index: 'hnsw', change: true } as const

for (const engine of engines) {
  describe.skipIf(!engine.available)(`what embeddings are kept in, on ${engine.name}`, () => {
    let opened: TestDatabase
    beforeAll(async () => {
      opened = await engine.open()
    })
    afterAll(() => opened?.close())
    afterEach(async () => {
      const { db, schema } = opened.database
      for (const table of ['messages', 'chain_analysis_results'])
        await sql`alter table ${sql.id(schema, table)} drop column if exists embedding`.execute(db)
    })
    const prepare = (options = {}) =>
      prepareVectors(opened.database, { ...HNSW, ...options }, recordingLog().log)
    const columns = async () => {
      const { rows } = await sql<{ name: string }>`
        select table_name as name from information_schema.columns
         where table_schema = ${opened.database.schema} and column_name = 'embedding' and udt_name = 'vector' order by 1`.execute(
        opened.database.db,
      )
      return rows.map(({ name }) => name)
    }

    test('is not there before it is prepared, and then is, from several processes at once', async () => {
      const vectors = createVectors(opened.database, { probes: undefined })
      expect(await vectors.space()).toEqual({ available: false })
      await Promise.all([prepare(), prepare(), prepare()])
      // it is not asked anew every time
      expect(await vectors.space()).toEqual({ available: false })
      vectors.forget()
      expect(await vectors.space()).toMatchObject({
        available: true,
        schema: 'public',
        version: expect.stringMatching(/^\d+\.\d+/),
        index: engine.name === 'postgres' ? 'hnsw' : 'none',
        iterates: true,
        probes: 0,
      })
      expect(await columns()).toEqual(['chain_analysis_results', 'messages'])
    })

    test('is no drift, goes with its migration and comes back', async () => {
      await prepare()
      const migrations = await loadMigrations()
      expect(await findDrift(opened.database, migrations)).toEqual([])
      await downgrade(opened.database, migrations, '0009')
      expect(await columns()).toEqual([])
      await upgrade(opened.database, migrations)
      await prepare()
      expect(await columns()).toEqual(['chain_analysis_results', 'messages'])
    })

    test('that it is gone is noticed from the error of a statement', async () => {
      await prepare()
      const vectors = createVectors(opened.database, { probes: undefined })
      expect(await vectors.space()).toMatchObject({ available: true })
      const { db, schema } = opened.database
      for (const table of ['messages', 'chain_analysis_results'])
        await sql`alter table ${sql.id(schema, table)} drop column embedding`.execute(db)
      expect(await vectors.space()).toMatchObject({ available: true })
      const error = await sql`select embedding from ${sql.id(schema, 'messages')}`
        .execute(db)
        .catch((cause: unknown) => cause)
      expect(vectors.isLoss(error)).toBe(true)
      expect(await vectors.space()).toEqual({ available: false })
      expect(vectors.isLoss(new Error('other'))).toBe(false)
    })

    test('without the right to change the schema it is checked only', async () => {
      const { log, logged } = recordingLog()
      await prepareVectors(opened.database, { ...HNSW, change: false }, log)
      expect(await columns()).toEqual([])
      expect(logged.map(({ message }) => message)).toEqual([expect.stringContaining('threadbase db upgrade')])
    })

    test('a column of another type stays as it is', async () => {
      const { db, schema } = opened.database
      await sql`alter table ${sql.id(schema, 'messages')} add column embedding text`.execute(db)
      const { log, logged } = recordingLog()
      await prepareVectors(opened.database, HNSW, log)
      expect(logged).toMatchObject([{ level: 'warn', facts: { table: 'messages', type: 'text' } }])
      expect(await createVectors(opened.database, { probes: undefined }).space()).toEqual({
        available: false,
      })
    })

    test('there is no index of a kind that is made from rows while there are few', async () => {
      await prepare({ index: 'ivfflat' })
      expect(await createVectors(opened.database, { probes: undefined }).space()).toMatchObject({
        index: 'none',
      })
    })

    test('another language of search is no drift', async () => {
      await sql`create or replace function ${sql.id(opened.database.schema, 'search_language')}() returns regconfig
                language sql immutable parallel safe return 'pg_catalog.german'::regconfig`.execute(
        opened.database.db,
      )
      expect(await findDrift(opened.database, await loadMigrations())).toEqual([])
    })
  })
}

describe.skipIf(postgresUrl === null)('what embeddings are kept in, on PostgreSQL alone', () => {
  let own: OwnDatabase
  beforeAll(async () => {
    own = await createOwnDatabase()
  })
  afterAll(() => own?.drop())

  test('without the right to make it the log says what an administrator runs, and all else works', async () => {
    const embedder = newTestEmbedder()
    const open = async () => {
      const { log, logged } = recordingLog()
      const tb = await openThreadbase({ databaseUrl: own.ownerUrl, embeddings: embedder, log })
      return { tb, logged }
    }
    const scope = { userId: 'anna' }
    const { tb, logged } = await open()
    expect(logged.find(({ level }) => level === 'warn')).toMatchObject({
      facts: { sql: 'create extension vector', reason: expect.stringContaining('permission denied') },
    })
    const { id } = await tb.threads.create(scope)
    const [message] = await tb.messages.append(scope, id, [{ role: 'user', content: 'green tea' }])
    expect((await tb.messages.list(scope, id)).items).toHaveLength(1)
    expect(await tb.embeddings.wait(scope, [String(message?.id)])).toBe('off')
    expect(await tb.embeddings.status()).toMatchObject({ state: 'unavailable', space: { available: false } })
    await expect(tb.embeddings.backfill()).rejects.toMatchObject({ code: 'unavailable' })
    await expect(tb.embeddings.buildIndex({ type: 'hnsw' })).rejects.toMatchObject({ code: 'unavailable' })
    await tb.close()
    // as the log says
    await own.run('create extension vector')
    const again = await open()
    expect(again.logged.filter(({ level }) => level === 'warn')).toEqual([])
    expect(await again.tb.embeddings.wait(scope, [String(message?.id)])).toBe('embedded')
    expect(await again.tb.embeddings.status()).toMatchObject({ done: 1, space: { index: 'hnsw' } })
    await again.tb.close()
  })

  test('the role of users may see the extension, wherever it is', async () => {
    const role = `${own.name}_app`
    await own.run('drop extension if exists vector cascade', 'create schema if not exists elsewhere')
    await own.run('create extension vector schema elsewhere')
    const { log, logged } = recordingLog()
    const options = { url: own.url, schema: newSchemaName(), rls: 'enforce', appRole: role, log } as const
    const database = await openPostgres(options)
    try {
      await upgrade(database, await loadMigrations())
      await prepareRls(database, { grant: true })
      await prepareVectors(database, HNSW, log)
      expect(logged.filter(({ level }) => level === 'warn')).toEqual([])
      const { rows } = await sql<{ near: number }>`
        select '[1,2]'::elsewhere.vector operator(elsewhere.<=>) '[1,2]'::elsewhere.vector as near`.execute(
        database.forUser('anna'),
      )
      expect(rows).toEqual([{ near: 0 }])
      expect(await createVectors(database, { probes: undefined }).space()).toMatchObject({
        schema: 'elsewhere',
        index: 'hnsw',
      })
    } finally {
      await database.close()
      await own.run('drop extension vector cascade', `drop owned by ${role}`, `drop role ${role}`)
    }
  })

  describe('an index', () => {
    let tb: Threadbase
    const scope = { userId: 'anna' }
    beforeAll(async () => {
      await own.run('create extension if not exists vector')
      tb = await openThreadbase({
        databaseUrl: own.url,
        databaseSchema: 'indexed',
        embeddings: newTestEmbedder('m', 64),
      })
      const { id } = await tb.threads.create(scope)
      const messages = Array.from({ length: 300 }, (_, i) => ({
        role: 'user' as const,
        content: `tea ${i} ${i % 7}`,
      }))
      await tb.messages.append(scope, id, messages)
      await tb.embeddings.backfill()
    })
    afterAll(() => tb?.close())
    const indexes = async () => {
      const { rows } = await sql<{ definition: string }>`
        select indexdef as definition from pg_indexes where schemaname = 'indexed' and indexname like '%by_embedding%'
           and indexname not like '%model%'`.execute(tb.database.db)
      return rows.map(({ definition }) => definition)
    }

    test('is replaced by one of another type and back, while appends go on', async () => {
      expect(await indexes()).toEqual([expect.stringMatching(/messages_by_embedding ON .* USING hnsw/)])
      const phases: string[] = []
      const onProgress = (phase: string) => void phases.push(phase)
      expect(await tb.embeddings.buildIndex({ type: 'ivfflat', lists: 16, onProgress })).toMatchObject({
        ...{ index: 'ivfflat', lists: 16, vectors: 300 },
      })
      expect(await indexes()).toEqual([
        expect.stringMatching(/messages_by_embedding ON .* USING ivfflat .*lists='16'/),
      ])
      expect((await tb.embeddings.status()).space).toMatchObject({ index: 'ivfflat', probes: 4 })
      const { log, logged } = recordingLog()
      await prepareVectors(tb.database, HNSW, log)
      expect(logged).toMatchObject([{ level: 'info', facts: { index: 'ivfflat', wanted: 'hnsw' } }])
      expect(await tb.embeddings.buildIndex({ type: 'hnsw', memoryMb: 64 })).toMatchObject({
        index: 'hnsw',
        lists: null,
      })
      expect(await indexes()).toEqual([expect.stringMatching(/messages_by_embedding ON .* USING hnsw/)])
      expect(await findDrift(tb.database, await loadMigrations())).toEqual([])
    })

    test('that is given up leaves the one there was', async () => {
      expect(await tb.embeddings.buildIndex({ type: 'hnsw', signal: AbortSignal.abort() })).toMatchObject({
        index: null,
      })
      expect(await indexes()).toEqual([expect.stringMatching(/messages_by_embedding ON .* USING hnsw/)])
    })

    test('is made by one process at a time', async () => {
      const both = await Promise.allSettled([1, 2].map(() => tb.embeddings.buildIndex({ type: 'hnsw' })))
      expect(both.map(({ status }) => status).toSorted()).toEqual(['fulfilled', 'rejected'])
      expect(both.find(({ status }) => status === 'rejected')).toMatchObject({ reason: { code: 'conflict' } })
    })

    test('whose making broke off is said to be there, and is made again', async () => {
      const { db } = tb.database
      await sql`drop index indexed.messages_by_embedding`.execute(db)
      await sql`create index messages_by_embedding_next on indexed.messages using hnsw (embedding public.vector_cosine_ops)`.execute(
        db,
      )
      await sql`update pg_index set indisvalid = false where indexrelid = 'indexed.messages_by_embedding_next'::regclass`.execute(
        db,
      )
      const { log, logged } = recordingLog()
      await prepareVectors(tb.database, HNSW, log)
      expect(logged).toMatchObject([{ level: 'warn', message: expect.stringContaining('embeddings index') }])
      await tb.embeddings.buildIndex({ type: 'hnsw' })
      expect(await indexes()).toHaveLength(1)
    })

    test('is not made at a start when there are many', async () => {
      const { db } = tb.database
      await sql`drop index indexed.messages_by_embedding`.execute(db)
      const { id } = await tb.threads.create(scope)
      for (let i = 0; i < 2; i++)
        await tb.messages.append(
          scope,
          id,
          Array.from({ length: 1_000 }, () => ({ role: 'user' as const, content: '' })),
        )
      await tb.embeddings.backfill()
      const { log, logged } = recordingLog()
      await prepareVectors(tb.database, HNSW, log)
      expect(logged).toMatchObject([{ level: 'warn', message: expect.stringContaining('embeddings index') }])
      expect(await indexes()).toEqual([])
    })
  })
})
