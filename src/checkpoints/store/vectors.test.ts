import { hash } from 'node:crypto'
import { Embeddings } from '@langchain/core/embeddings'
import { InMemoryStore } from '@langchain/langgraph-checkpoint'
import { sql } from 'kysely'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { engines, type TestDatabase } from '../../../test/harness.ts'
import { findDrift } from '../../db/drift.ts'
import { loadMigrations } from '../../db/migrations.ts'
import { readBatch } from './operations.ts'
import { newest, searchStatement } from './repo.ts'
import { type StoreIndex, type StoreOptions, ThreadbaseStore } from './service.ts'
import { nearest } from './vectors/service.ts'

const DIMS = 32

/** Texts that share words are near to each other: each word has a direction of its own. */
function embed(text: string): number[] {
  const vector = new Array<number>(DIMS).fill(0)
  for (const word of text.toLowerCase().match(/\p{L}+|\d+/gu) ?? []) {
    const bytes = hash('sha256', word, 'buffer')
    for (let i = 0; i < DIMS; i++) vector[i] = (vector[i] as number) + (bytes[i] as number) - 127.5
  }
  return vector
}

class WordEmbeddings extends Embeddings {
  readonly asked: string[] = []
  constructor() {
    super({})
  }
  async embedDocuments(texts: string[]): Promise<number[][]> {
    this.asked.push(...texts)
    return texts.map(embed)
  }
  async embedQuery(text: string): Promise<number[]> {
    this.asked.push(text)
    return embed(text)
  }
}

const NOTES = {
  tea: { text: 'green tea in the morning' },
  coffee: { text: 'coffee at night' },
  both: { text: 'tea and coffee', kind: 'mixed' },
  bike: { text: 'a red bicycle', kind: 'mixed' },
}

for (const engine of engines) {
  describe.skipIf(!engine.available)(`vectors on ${engine.name}`, () => {
    let opened: TestDatabase
    beforeAll(async () => {
      opened = await engine.open()
    })
    afterAll(() => opened?.close())

    let users = 0
    let userId: string
    beforeEach(() => {
      userId = `vectors-${++users}`
    })
    const newStore = (index: Partial<StoreIndex> = {}, options: StoreOptions = {}) =>
      new ThreadbaseStore(opened.database, {
        userId,
        index: { dims: DIMS, embeddings: async (texts) => texts.map(embed), fields: ['text'], ...index },
        ...options,
      })
    const fill = async (store: Pick<ThreadbaseStore, 'put'>) => {
      for (const [key, value] of Object.entries(NOTES)) await store.put(['notes'], key, value)
    }
    const close = (score: number | undefined) => Math.round((score ?? Number.NaN) * 1e4) / 1e4

    // by comparing all, and by the index
    for (const exactUpTo of [Number.POSITIVE_INFINITY, 0]) {
      describe(`compared ${exactUpTo === 0 ? 'by the index' : 'one by one'}`, () => {
        test('a query finds what is near, with the scores of InMemoryStore', async () => {
          const embeddings = new WordEmbeddings()
          const oracle = new InMemoryStore({ index: { dims: DIMS, embeddings, fields: ['text'] } })
          const store = newStore({ embeddings, exactUpTo })
          await fill(oracle)
          await fill(store)
          for (const query of ['tea', 'coffee at night', 'red', 'something else']) {
            const toPair = ({ key, score }: { key: string; score?: number }) => [key, close(score)]
            const expected = (await oracle.search(['notes'], { query })).map(toPair)
            expect((await store.search(['notes'], { query })).map(toPair)).toEqual(expected)
          }
          expect(
            (await store.search([], { query: 'tea', limit: 1, offset: 1 })).map(({ key }) => key),
          ).toEqual(
            (await oracle.search(['notes'], { query: 'tea', limit: 1, offset: 1 })).map(({ key }) => key),
          )
        })

        test('below a prefix, with a filter, and not what has expired', async () => {
          const store = newStore({ exactUpTo })
          await fill(store)
          await store.put(['notes10'], 'other', { text: 'tea' })
          await store.put(['notes', 'deep'], 'deep', { text: 'tea' }, undefined, { ttlS: 100 })
          const find = async (filter?: Record<string, unknown>) =>
            (await store.search(['notes'], { query: 'tea', filter })).map(({ key }) => key)
          expect((await find())[0]).toBe('deep')
          expect(await find()).toHaveLength(5)
          expect(await find({ kind: 'mixed' })).toEqual(['both', 'bike'])
          await sql`update ${sql.table('store')} set expires_at = now() where expires_at is not null`.execute(
            opened.database.db,
          )
          expect(await find()).toHaveLength(4)
        })

        test('an item with several texts is found once, by its best', async () => {
          const store = newStore({ exactUpTo, fields: ['parts[*]', 'title'] })
          await store.put(['n'], 'many', { title: 'nothing', parts: ['tea', 'coffee', 'bicycle'] })
          await store.put(['n'], 'one', { title: 'tea and something' })
          for (const query of ['tea', 'coffee', 'bicycle']) {
            const found = await store.search(['n'], { query })
            expect(found.map(({ key }) => key)).toEqual(['many', 'one'])
            expect(found[0]?.score).toBeCloseTo(1, 5)
          }
        })

        test('an item is found by its newest value alone, and not at all when it is not indexed', async () => {
          const store = newStore({ exactUpTo })
          await store.put(['n'], 'k', { text: 'tea' })
          await store.put(['n'], 'k', { text: 'bicycle' })
          await store.put(['n'], 'hidden', { text: 'tea' }, false)
          await store.put(['n'], 'other', { text: 'tea', title: 'coffee' }, ['title'])
          const found = await store.search(['n'], { query: 'tea' })
          expect(found.map(({ key }) => key).sort()).toEqual(['k', 'other'])
          for (const { score } of found) expect(score).toBeLessThan(0.9)
          await store.delete(['n'], 'k')
          expect(await store.search(['n'], { query: 'tea' })).toHaveLength(1)
          expect(await store.search(['n'])).toHaveLength(2)
        })

        test('many items of others are not in the way', async () => {
          const store = newStore({ exactUpTo })
          await fill(store)
          const crowd = newStore({ exactUpTo }, { userId: `${userId}-crowd` })
          await crowd.batch(
            Array.from({ length: 1_500 }, (_, i) => ({
              namespace: ['notes'],
              key: `${i}`,
              value: { text: `tea ${i}` },
            })),
          )
          const found = await store.search(['notes'], { query: 'tea' })
          expect(found.map(({ key }) => key)).toHaveLength(4)
          expect(found[0]?.key).toBe('both')
          expect(await crowd.search(['notes'], { query: 'tea', limit: 50 })).toHaveLength(50)
        })
      })
    }

    test('the planner uses the index', async () => {
      const store = newStore({ exactUpTo: 0 })
      for (let i = 0; i < 4; i++) {
        await store.batch(
          Array.from({ length: 500 }, (_, k) => ({
            namespace: ['many'],
            key: `${i}-${k}`,
            value: { text: `note ${i} ${k} tea` },
          })),
        )
      }
      const { db } = opened.database
      await sql`analyze ${sql.table('store')}, ${sql.table('store_vectors')}`.execute(db)
      const [search] = readBatch(userId, [
        { namespacePrefix: ['many'], query: 'tea', limit: 10, offset: 0 },
      ]).searches
      if (search === undefined) throw new Error('no search')
      expect(await store.search(['many'], { query: 'tea' })).toHaveLength(10)
      const { rows: extensions } = await sql<{ schema: string; version: string }>`
        select n.nspname as schema, extversion as version from pg_extension e
          join pg_namespace n on n.oid = e.extnamespace where extname = 'vector'`.execute(db)
      const space = { dims: DIMS, extension: extensions[0], exactUpTo: 500 }
      const statement = searchStatement(userId, [nearest(userId, search, embed('tea'), space)], true)
      const { rows } = await sql<{ 'QUERY PLAN': string }>`explain (analyze, costs off) ${statement}`.execute(
        db,
      )
      const plan = rows.map((row) => row['QUERY PLAN']).join('\n')
      expect(plan).toMatch(new RegExp(`Index Scan using store_vectors_nearest_${DIMS} on store_vectors`))
      expect(plan).toMatch(/Order By: /)
      expect(plan).not.toMatch(/store_vectors_nearest_\d+ on store_vectors[^\n]*never executed/)
    })

    test('a prefix is a range of the primary key, under row level security too', async () => {
      const store = newStore({ embeddings: undefined })
      const namespaces = Array.from({ length: 40 }, (_, i) => [`label${i}`])
      await store.batch(
        namespaces.flatMap((namespace) =>
          Array.from({ length: 25 }, (_, k) => ({ namespace, key: `${k}`, value: { text: 'x' } })),
        ),
      )
      const { database } = opened
      await sql`analyze ${sql.table('store')}`.execute(database.db)
      const [search] = readBatch(userId, [{ namespacePrefix: ['label7'] }]).searches
      if (search === undefined) throw new Error('no search')
      const statement = searchStatement(userId, [newest(userId, search)], false)
      const { rows } = await sql<{ 'QUERY PLAN': string }>`explain ${statement}`.execute(
        database.forUser(userId),
      )
      const plan = rows.map((row) => row['QUERY PLAN']).join('\n')
      expect(plan).toMatch(/store_pkey/)
      expect(plan).toMatch(/Index Cond: \(\(user_id = [^\n]*path >= [^\n]*path < /)
    })

    test('what the index gives agrees with comparing one by one', async () => {
      const byIndex = newStore({ exactUpTo: 0 })
      const words = ['tea', 'coffee', 'red', 'green', 'night', 'morning', 'bicycle', 'walk']
      const texts = Array.from({ length: 600 }, (_, i) => `${words[i % 8]} ${words[(i * 5) % 7]} ${i}`)
      await byIndex.batch(texts.map((text, i) => ({ namespace: ['n'], key: `${i}`, value: { text } })))
      const exact = newStore({ exactUpTo: Number.POSITIVE_INFINITY })
      for (const query of words) {
        const wanted = (await exact.search(['n'], { query, limit: 20 })).map(({ key }) => key)
        const found = (await byIndex.search(['n'], { query, limit: 20 })).map(({ key }) => key)
        expect(found.filter((key) => wanted.includes(key)).length).toBeGreaterThanOrEqual(18)
      }
    })

    test('what the index cannot find is found by comparing: never fewer than there are', async () => {
      const store = newStore({ exactUpTo: 0 })
      await fill(store)
      const found = await store.search(['notes'], { query: 'tea', limit: 100, filter: { kind: 'mixed' } })
      expect(found).toHaveLength(2)
    })

    test('an index is no drift of the schema', async () => {
      await newStore({ exactUpTo: 0 }).search([], { query: 'x' })
      expect(await findDrift(opened.database, await loadMigrations())).toEqual([])
    })

    test('vectors of more dimensions than an index takes are compared one by one', async () => {
      for (const dims of [3_072, 4_100]) {
        const long = (text: string) => [...embed(text), ...new Array<number>(dims - DIMS).fill(0)]
        const store = newStore({ dims, embeddings: async (texts) => texts.map(long), exactUpTo: 0 })
        await fill(store)
        expect((await store.search(['notes'], { query: 'bicycle' }))[0]?.key).toBe('bike')
      }
    })

    test('stores of other dimensions do not see each other’s vectors', async () => {
      await fill(newStore())
      const short = newStore({ dims: 2, embeddings: async (texts) => texts.map(() => [1, 0]) })
      expect(await short.search(['notes'], { query: 'tea' })).toEqual([])
      expect(await short.search(['notes'])).toHaveLength(4)
    })

    test('a vector without length is no error', async () => {
      const store = newStore()
      await store.put(['n'], 'zero', { text: '!!!' })
      await store.put(['n'], 'tea', { text: 'tea' })
      expect(await store.search(['n'], { query: 'tea' })).toMatchObject([
        { key: 'tea' },
        { key: 'zero', score: 0 },
      ])
      expect(await store.search(['n'], { query: '!!!' })).toHaveLength(2)
    })

    test('a batch asks the model once for each text, and stores nothing when it fails', async () => {
      const embeddings = new WordEmbeddings()
      const store = newStore({ embeddings })
      await store.batch([
        { namespace: ['n'], key: '1', value: { text: 'same' } },
        { namespace: ['n'], key: '2', value: { text: 'same' } },
        { namespace: ['n'], key: '3', value: { other: 'x' } },
      ])
      expect(embeddings.asked).toEqual(['same'])
      const failing = newStore({
        embeddings: async () => {
          throw new Error('no model')
        },
      })
      await expect(failing.put(['n'], '4', { text: 'x' })).rejects.toMatchObject({ code: 'unavailable' })
      await expect(failing.search(['n'], { query: 'x' })).rejects.toMatchObject({ code: 'unavailable' })
      expect(await store.search(['n'])).toHaveLength(3)
    })

    test.each<[string, Partial<StoreIndex>, field: string]>([
      ['too few numbers', { embeddings: async (texts) => texts.map(() => [1]) }, 'index.dims'],
      ['too few vectors', { embeddings: async () => [] }, 'index.embeddings'],
      [
        'no numbers',
        { embeddings: async (texts) => texts.map(() => new Array(DIMS).fill(Number.NaN)) },
        'index.embeddings',
      ],
    ])('a model that gives %s is refused by name', async (_, index, field) => {
      const put = newStore(index).put(['n'], 'k', { text: 'x' })
      await expect(put).rejects.toMatchObject({ code: 'invalid_input', details: { field } })
    })

    test('options that cannot be are refused by name', () => {
      expect(() => newStore({ dims: 0 })).toThrowError(/index\.dims/)
      expect(() => newStore({ fields: ['a['] })).toThrowError(/index\.fields/)
      expect(() => newStore({ exactUpTo: -1 })).toThrowError(/index\.exactUpTo/)
      expect(() => newStore({}, { ttl: { defaultS: -1 } })).toThrowError(/ttl\.defaultS/)
    })

    test('without the extension vectors are compared in plain SQL', async () => {
      const store = newStore()
      await fill(store)
      const [search] = readBatch(userId, [
        { namespacePrefix: [], query: 'tea', limit: 10, offset: 0 },
      ]).searches
      if (search === undefined) throw new Error('no search')
      const space = { dims: DIMS, extension: undefined, exactUpTo: Number.POSITIVE_INFINITY }
      const { rows } = await sql<{ key: string; score: number }>`
        ${searchStatement(userId, [nearest(userId, search, embed('tea'), space)], true)}`.execute(
        opened.database.db,
      )
      const expected = await store.search([], { query: 'tea' })
      expect(rows.map(({ key, score }) => [key, close(score)])).toEqual(
        expected.map(({ key, score }) => [key, close(score)]),
      )
    })
  })
}
