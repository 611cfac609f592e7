import { setTimeout as delay } from 'node:timers/promises'
import { sql } from 'kysely'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { engines, type TestDatabase } from '../../../test/harness.ts'
import { keysOf, storesOn } from '../../../test/stores.ts'
import type { ThreadbaseStore } from './service.ts'

for (const engine of engines) {
  describe.skipIf(!engine.available)(`time to live in the store on ${engine.name}`, () => {
    let opened: TestDatabase
    beforeAll(async () => {
      opened = await engine.open()
    })
    afterAll(() => opened?.close())
    const { newStore, userId } = storesOn(() => opened)
    let store: ThreadbaseStore
    beforeEach(() => {
      store = newStore()
    })

    const rows = async () => {
      const { n } = await opened.database.db
        .selectFrom('store')
        .select((e) => e.fn.countAll().as('n'))
        .where('user_id', '=', userId())
        .executeTakeFirstOrThrow()
      return Number(n)
    }
    /** As if that much time had passed for the items of the user. */
    const pass = (seconds: number) =>
      sql`update ${sql.table('store')} set expires_at = expires_at - ${seconds} * interval '1 second'
           where user_id = ${userId()}`.execute(opened.database.db)

    test('what has expired is not found, and is removed by a sweep', async () => {
      await store.put(['t'], 'short', { n: 1 }, undefined, { ttlS: 10 })
      await store.put(['t'], 'long', { n: 1 }, undefined, { ttlS: 1_000 })
      await store.put(['t'], 'ever', { n: 1 })
      await pass(20)
      expect(await store.get(['t'], 'short')).toBeNull()
      expect(keysOf(await store.search(['t']))).toEqual(['ever', 'long'])
      expect(keysOf(await store.search(['t'], { query: '1' }))).toEqual(['ever', 'long'])
      expect(await rows()).toBe(3)
      expect(await store.sweepExpired()).toBe(1)
      expect(await rows()).toBe(2)
    })

    test('a namespace of expired items is not listed', async () => {
      await store.put(['t', 'gone'], 'k', {}, undefined, { ttlS: 10 })
      await pass(20)
      expect(await store.listNamespaces()).toEqual([])
    })

    test('one that is put again is new', async () => {
      await store.put(['t'], 'k', { n: 1 }, undefined, { ttlS: 10 })
      const created = (await store.get(['t'], 'k'))?.createdAt as Date
      await pass(20)
      await delay(5)
      await store.put(['t'], 'k', { n: 2 })
      const again = await store.get(['t'], 'k')
      expect(again?.createdAt.getTime()).toBeGreaterThan(created.getTime())
      await pass(10_000)
      expect(await store.get(['t'], 'k')).not.toBeNull()
    })

    test.each(['get', 'search'] as const)('a %s gives the whole time again', async (how) => {
      await store.put(['t'], 'k', {}, undefined, { ttlS: 100 })
      for (let i = 0; i < 3; i++) {
        await pass(60)
        expect(await (how === 'get' ? store.get(['t'], 'k') : store.search(['t']))).toMatchObject(
          how === 'get' ? { key: 'k' } : [{ key: 'k' }],
        )
      }
      await pass(101)
      expect(await store.get(['t'], 'k')).toBeNull()
    })

    test('a search refreshes what it returns and nothing else', async () => {
      await store.put(['t'], 'a', { n: 1 }, undefined, { ttlS: 100 })
      await store.put(['t'], 'b', { n: 2 }, undefined, { ttlS: 100 })
      await pass(60)
      await store.search(['t'], { filter: { n: 1 } })
      await pass(60)
      expect(keysOf(await store.search(['t']))).toEqual(['a'])
    })

    test('reads refresh nothing when they are told not to', async () => {
      const still = newStore({ ttl: { refreshOnRead: false, defaultS: 100 } })
      await still.put(['t'], 'k', {})
      await pass(60)
      expect(await still.get(['t'], 'k')).not.toBeNull()
      await pass(60)
      expect(await still.get(['t'], 'k')).toBeNull()
    })

    test('by default what the store says, unless the item says otherwise', async () => {
      const short = newStore({ ttl: { defaultS: 10 } })
      await short.put(['t'], 'default', {})
      await short.put(['t'], 'ever', {}, undefined, { ttlS: null })
      await short.put(['t'], 'long', {}, undefined, { ttlS: 1_000 })
      await pass(20)
      expect(keysOf(await short.search(['t']))).toEqual(['ever', 'long'])
    })

    test('a store in use sweeps now and then', async () => {
      const busy = newStore({ ttl: { sweepEveryS: 0 } })
      await busy.put(['t'], 'k', {}, undefined, { ttlS: 10 })
      await pass(20)
      await busy.get(['t'], 'other')
      await expect.poll(rows, { timeout: 30_000 }).toBe(0)
    })
  })
}
