import { uuid6 } from '@langchain/langgraph-checkpoint'
import pg from 'pg'
import { describe, expect, test } from 'vitest'
import { newSchemaName, postgresUrl } from '../test/harness.ts'
import { ThreadbaseSaver, ThreadbaseStore } from './langgraph.ts'

describe.skipIf(postgresUrl === null)("on an application's own pool", () => {
  const withPools = async (count: number, act: (pools: pg.Pool[], schema: string) => Promise<void>) => {
    const schema = newSchemaName()
    const pools = Array.from(
      { length: count },
      () => new pg.Pool({ connectionString: postgresUrl ?? '', max: 2 }),
    )
    try {
      await act(pools, schema)
    } finally {
      await pools[0]?.query(`drop schema if exists ${schema} cascade`)
      await Promise.all(pools.map((pool) => pool.end()))
    }
  }
  const checkpoint = {
    v: 4,
    id: uuid6(0),
    ts: new Date().toISOString(),
    channel_values: { a: [{ text: 'x'.repeat(9_000) }] },
    channel_versions: { a: 1 },
    versions_seen: {},
  }
  const at = { configurable: { thread_id: 't' } }

  test('eight servers call setup() together', async () => {
    await withPools(8, async (pools, schema) => {
      const savers = pools.map((pool) => new ThreadbaseSaver(pool, { schema, userId: 'u' }))
      await Promise.all(savers.map((saver) => saver.setup()))
      await savers[0]?.put(at, checkpoint, { source: 'input', step: -1, parents: {} }, { a: 1 })
      for (const saver of savers) expect(await saver.getTuple(at)).toMatchObject({ checkpoint })
    })
  })

  test('a checkpointer with a default user needs none in the config, and the pool stays as it was', async () => {
    await withPools(1, async ([pool], schema) => {
      if (pool === undefined) throw new Error('no pool')
      const saver = new ThreadbaseSaver(pool, { schema, defaultUserId: 'me' })
      await expect(saver.getTuple(at)).rejects.toMatchObject({ code: 'unavailable' })
      await saver.setup()
      await saver.put(at, checkpoint, { source: 'input', step: -1, parents: {} }, { a: 1 })
      expect(await saver.getTuple(at)).toMatchObject({ checkpoint })
      expect(await saver.getTuple({ configurable: { ...at.configurable, user_id: 'other' } })).toBeUndefined()
      const { rows } = await pool.query("select 1::int8 as n, '{}'::json as j")
      expect(rows).toEqual([{ n: '1', j: {} }])
      expect(pool.idleCount).toBe(pool.totalCount)
    })
  })

  test('where transactions are not read committed, prune and copies say so themselves, the rest is refused', async () => {
    await withPools(1, async ([plain], schema) => {
      const options = '-c default_transaction_isolation=repeatable\\ read'
      const pool = new pg.Pool({ connectionString: postgresUrl ?? '', options })
      try {
        const open = (given = pool) => new ThreadbaseSaver(given, { schema, userId: 'u' })
        await open().setup()
        await open(plain).put(at, checkpoint, { source: 'input', step: -1, parents: {} }, { a: 1 })
        const refused = {
          code: 'unavailable',
          message: expect.stringContaining('default_transaction_isolation'),
        }
        const next = { ...checkpoint, id: uuid6(1) }
        await expect(open().put(at, next, { source: 'loop', step: 0, parents: {} })).rejects.toMatchObject(
          refused,
        )
        const config = { configurable: { ...at.configurable, checkpoint_id: checkpoint.id } }
        await expect(open().putWrites(config, [['x', 1]], 'task')).rejects.toMatchObject(refused)
        await open().copyThread('t', 'copy')
        await open().prune({ keepLatest: 1 })
        expect(await open().getTuple(at)).toMatchObject({ checkpoint })
        await expect(open().deleteThread('t')).rejects.toMatchObject(refused)
      } finally {
        await pool.end()
      }
    })
  })

  test('servers set up the store together, with its vectors, and its pool stays as it was', async () => {
    await withPools(6, async (pools, schema) => {
      const embeddings = async (texts: string[]) => texts.map((text) => [text.length, 1, 0])
      const index = { dims: 3, embeddings, fields: ['text'], exactUpTo: 0 }
      const stores = pools.map((pool) => new ThreadbaseStore(pool, { schema, defaultUserId: 'me', index }))
      await Promise.all(stores.map((store) => store.setup()))
      // each makes the extension and the index ready when it needs them first
      const found = await Promise.all(
        stores.map(async (store, i) => {
          await store.put(['notes'], `k${i}`, { text: 'x'.repeat(i + 1) })
          return store.search(['notes'], { query: 'xx', limit: 1 })
        }),
      )
      expect(found.every(({ length }) => length === 1)).toBe(true)
      expect((await stores[0]?.search(['notes'], { query: 'xx', limit: 1 }))?.[0]?.key).toBe('k1')
      const { rows } = await (pools[0] as pg.Pool).query("select 1::int8 as n, '{}'::json as j")
      expect(rows).toEqual([{ n: '1', j: {} }])
    })
  })
})
