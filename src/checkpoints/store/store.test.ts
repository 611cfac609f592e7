import { setTimeout as delay } from 'node:timers/promises'
import type { Operation, SearchItem } from '@langchain/langgraph-checkpoint'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { engines, type TestDatabase } from '../../../test/harness.ts'
import { keysOf, storesOn } from '../../../test/stores.ts'
import type { StorePut, ThreadbaseStore } from './service.ts'

for (const engine of engines) {
  describe.skipIf(!engine.available)(`the store on ${engine.name}`, () => {
    let opened: TestDatabase
    const sent: string[] = []
    beforeAll(async () => {
      opened = await engine.open({
        trace: (name) => {
          sent.push(name)
          return () => {}
        },
      })
    })
    afterAll(() => opened?.close())
    const { newStore } = storesOn(() => opened)
    let store: ThreadbaseStore
    beforeEach(() => {
      store = newStore()
    })

    test('an item is stored, read, replaced and removed', async () => {
      const value = { text: 'a', n: 1, list: [1, { x: null }], none: null, yes: true }
      await store.put(['notes'], 'k', value)
      const item = await store.get(['notes'], 'k')
      expect(item).toEqual({
        namespace: ['notes'],
        key: 'k',
        value,
        createdAt: expect.any(Date),
        updatedAt: expect.any(Date),
      })
      await delay(5)
      await store.put(['notes'], 'k', { text: 'b' })
      const replaced = await store.get(['notes'], 'k')
      expect(replaced).toMatchObject({ value: { text: 'b' }, createdAt: item?.createdAt })
      expect(replaced?.updatedAt.getTime()).toBeGreaterThan(item?.updatedAt.getTime() ?? Infinity)
      await store.delete(['notes'], 'k')
      expect(await store.get(['notes'], 'k')).toBeNull()
      await store.delete(['notes'], 'k')
    })

    test('search(["user1"]) does not return the items of ["user10"]', async () => {
      await store.put(['user1'], 'a', {})
      await store.put(['user1', 'deep'], 'b', {})
      await store.put(['user10'], 'c', {})
      await store.put(['user', '1'], 'd', {})
      expect(keysOf(await store.search(['user1']))).toEqual(['a', 'b'])
      expect(keysOf(await store.search(['user']))).toEqual(['d'])
      expect(keysOf(await store.search(['user1', 'deep']))).toEqual(['b'])
    })

    test('labels hold any text, _ and % and . and : and control characters among them', async () => {
      const labels = [
        '_',
        '%',
        'a_b',
        'a%b',
        'a.b',
        'a:b',
        '*',
        '\\',
        '"',
        "'",
        '{a,b}',
        ' ',
        'é日😀',
        '\u0001',
      ]
      labels.push('\u0002', '\u0001\u0002', '\u0002\u0001', 'a\u0001', 'NULL', '\uffff', '\u{10ffff}')
      for (const label of labels) {
        await store.put([label], label, { label })
        await store.put([label, label], 'deep', { label })
      }
      for (const label of labels) {
        expect((await store.get([label], label))?.value).toEqual({ label })
        expect((await store.search([label])).map(({ value }) => value)).toEqual([{ label }, { label }])
        expect(await store.listNamespaces({ prefix: [label, label] })).toEqual(
          label === '*' ? expect.arrayContaining([['*', '*']]) : [[label, label]],
        )
      }
      const all = await store.listNamespaces()
      expect(all.map(String)).toEqual(expect.arrayContaining(labels.map(String)))
      expect(all).toHaveLength(2 * labels.length)
    })

    test.each([
      ['NUL', 'a\0b'],
      ['a lone surrogate', '\ud800'],
      ['nothing', ''],
      ['a number', 1 as never],
    ])('a label with %s is refused by name', async (_, label) => {
      const refused = { code: 'invalid_input', details: { field: 'namespace' } }
      await expect(store.put([label], 'k', {})).rejects.toMatchObject(refused)
      await expect(store.get(['a', label], 'k')).rejects.toMatchObject(refused)
      await expect(store.search([label])).rejects.toMatchObject({ code: 'invalid_input' })
      await expect(store.listNamespaces({ prefix: [label] })).rejects.toMatchObject({ code: 'invalid_input' })
    })

    test('what cannot be is refused by name', async () => {
      const circle: Record<string, unknown> = {}
      circle.self = circle
      const cases: [Promise<unknown>, field: string][] = [
        [store.put([], 'k', {}), 'namespace'],
        [store.put(['langgraph'], 'k', {}), 'namespace'],
        [store.put(['x'.repeat(2_500)], 'k', {}), 'namespace'],
        [store.put(['a'], 'k\0', {}), 'key of the item'],
        [store.put(['a'], 'k', circle), 'value'],
        [store.put(['a'], 'k', { n: 1n }), 'value'],
        [store.put(['a'], 'k', [1] as never), 'value'],
        [store.put(['a'], 'k', 'text' as never), 'value'],
        [store.put(['a'], 'k', undefined as never), 'value'],
        [store.put(['a'], 'k', {}, ['a[']), 'index'],
        [store.put(['a'], 'k', {}, undefined, { ttlS: 0 }), 'ttlS'],
        [store.search(['a'], { limit: -1 }), 'limit'],
        [store.search(['a'], { offset: 0.5 }), 'offset'],
        [store.search(['a'], { filter: { n: { $near: 1 } } }), 'filter.n'],
        [store.search(['a'], { filter: { n: { $gt: Number.NaN } } }), 'filter.n'],
        [store.search(['a'], { filter: [] as never }), 'filter'],
        [store.listNamespaces({ maxDepth: 0 }), 'maxDepth'],
        [newStore({ userId: undefined }).get(['a'], 'k'), 'userId'],
      ]
      for (const [call, field] of cases)
        await expect(call, field).rejects.toMatchObject({ code: 'invalid_input', details: { field } })
      expect(await store.search([])).toEqual([])
    })

    test('namespace and key may be as long as an index takes, and no longer', async () => {
      // random: an index compresses what repeats
      const random = Array.from({ length: 2_300 }, () => String.fromCharCode(33 + Math.random() * 90)).join(
        '',
      )
      await store.put([random.slice(0, 1_000), random.slice(1_000, 1_900)], random.slice(1_900), { a: 1 })
      expect(await store.search([random.slice(0, 1_000)])).toHaveLength(1)
    })

    test('search([]) finds all of the user', async () => {
      await store.put(['a'], '1', {})
      await store.put(['b', 'c'], '2', {})
      expect(keysOf(await store.search([]))).toEqual(['1', '2'])
    })

    test('["a:b"] is not ["a","b"]', async () => {
      await store.put(['a:b'], 'k', { one: 1 })
      await store.put(['a', 'b'], 'k', { two: 2 })
      expect((await store.get(['a:b'], 'k'))?.value).toEqual({ one: 1 })
      expect((await store.get(['a', 'b'], 'k'))?.value).toEqual({ two: 2 })
      expect((await store.search(['a'])).map(({ value }) => value)).toEqual([{ two: 2 }])
    })

    test('listNamespaces({maxDepth}) cuts', async () => {
      const all = [['a'], ['a', 'b', 'c'], ['a', 'b', 'd'], ['a', 'x', 'c', 'e'], ['b', 'b']]
      for (const namespace of all) await store.put(namespace, 'k', {})
      expect(await store.listNamespaces()).toEqual(all)
      expect(await store.listNamespaces({ maxDepth: 1 })).toEqual([['a'], ['b']])
      expect(await store.listNamespaces({ maxDepth: 2 })).toEqual([['a'], ['a', 'b'], ['a', 'x'], ['b', 'b']])
      expect(await store.listNamespaces({ maxDepth: 2, limit: 2, offset: 1 })).toEqual([
        ['a', 'b'],
        ['a', 'x'],
      ])
      expect(await store.listNamespaces({ prefix: ['a', 'b'] })).toEqual([all[1], all[2]])
      expect(await store.listNamespaces({ prefix: ['a', 'b'], maxDepth: 2 })).toEqual([['a', 'b']])
      expect(await store.listNamespaces({ suffix: ['c'] })).toEqual([all[1]])
      expect(await store.listNamespaces({ suffix: ['b'] })).toEqual([all[4]])
      expect(await store.listNamespaces({ prefix: ['*', 'b'] })).toEqual([all[1], all[2], all[4]])
      expect(await store.listNamespaces({ prefix: ['a'], suffix: ['c', '*'] })).toEqual([all[3]])
      expect(await store.listNamespaces({ prefix: ['a', '*', '*'], suffix: ['b', '*'] })).toEqual([
        all[1],
        all[2],
      ])
      expect(await store.listNamespaces({ prefix: ['none'] })).toEqual([])
    })

    test('without a query the newest come first, in pages that fit together', async () => {
      for (let i = 0; i < 6; i++) {
        await store.put(['n'], `k${i}`, { i })
        await delay(2)
      }
      await store.put(['n'], 'k2', { i: 2 })
      const pages = [
        await store.search(['n'], { limit: 4 }),
        await store.search(['n'], { limit: 4, offset: 4 }),
      ]
      expect(pages.flat().map(({ key }) => key)).toEqual(['k2', 'k5', 'k4', 'k3', 'k1', 'k0'])
      expect(await store.search(['n'], { limit: 0 })).toEqual([])
      expect(pages[0]?.[0]?.score).toBeUndefined()
    })

    test('values come back as they were, NUL, surrogates and long numbers among them', async () => {
      const value = {
        'k\0': 'a\0b\ud800',
        '\uffff': '\uffff0000',
        deep: [{ e: 1e-300 }],
        empty: {},
        date: new Date(0),
      }
      await store.put(['v'], 'k', value)
      const expected = { ...value, date: '1970-01-01T00:00:00.000Z' }
      expect((await store.get(['v'], 'k'))?.value).toEqual(expected)
      expect((await store.search(['v']))[0]?.value).toEqual(expected)
    })

    test('a batch is one statement for each kind of operation, and answers in order', async () => {
      await store.put(['a'], '1', { n: 1 })
      await store.put(['a', 'b'], '2', { n: 2 })
      sent.length = 0
      const results = await store.batch([
        { namespace: ['a'], key: '1' },
        { namespace: ['c'], key: '3', value: { n: 3 } },
        { namespacePrefix: ['a'], filter: { n: 2 } },
        { matchConditions: [{ matchType: 'prefix', path: ['a'] }], limit: 10, offset: 0 },
        { namespace: ['a'], key: 'none' },
        { namespacePrefix: ['a'], limit: 1, offset: 1 },
        { namespace: ['a'], key: '1', value: null },
        { namespacePrefix: ['none'] },
        { limit: 1, offset: 1 },
        { namespace: ['a', 'b'], key: '2' },
      ] as Operation[])
      expect(results).toMatchObject([
        { value: { n: 1 } },
        undefined,
        [{ key: '2' }],
        [['a'], ['a', 'b']],
        null,
        [{ key: '1' }],
        undefined,
        [],
        [['a', 'b']],
        { value: { n: 2 } },
      ])
      expect(sent.sort()).toEqual(['store.get', 'store.namespaces', 'store.put', 'store.search'])
      expect(keysOf(await store.search([]))).toEqual(['2', '3'])
      expect(await store.batch([])).toEqual([])
    })

    test('a batch may have more searches than a statement has parameters', { timeout: 60_000 }, async () => {
      for (let n = 0; n < 10; n++) await store.put(['many'], `k${n}`, { n })
      const searches = Array.from({ length: 3_500 }, (_, i) => ({
        namespacePrefix: ['many'],
        filter: { n: { $eq: i % 10, $ne: -1, $gt: -1, $gte: 0, $lt: 10, $lte: 9 } },
        limit: 1,
        offset: 0,
      }))
      const results = (await store.batch(searches)) as SearchItem[][]
      expect(results.map((found) => found[0]?.key)).toEqual(searches.map((_, i) => `k${i % 10}`))
    })

    test('of several puts of one item in a batch the last holds', async () => {
      await store.batch([
        { namespace: ['a'], key: 'k', value: { n: 1 } },
        { namespace: ['a'], key: 'gone', value: { n: 1 } },
        { namespace: ['a'], key: 'k', value: { n: 2 } },
        { namespace: ['a'], key: 'gone', value: null },
      ])
      expect((await store.search(['a'])).map(({ value }) => value)).toEqual([{ n: 2 }])
    })

    test('batches that put and remove the same items at the same time do not stand in each other’s way', async () => {
      const keys = Array.from({ length: 20 }, (_, i) => `k${i}`)
      const batchOf = (round: number): StorePut[] =>
        (round % 2 === 0 ? keys : keys.toReversed()).map((key, i) => ({
          namespace: ['c'],
          key,
          value: (i + round) % 3 === 0 ? null : { round },
        }))
      await Promise.all(Array.from({ length: 16 }, (_, round) => store.batch(batchOf(round))))
      const { length } = await store.search(['c'], { limit: 100 })
      expect(length).toBeGreaterThan(10)
    })
  })
}
