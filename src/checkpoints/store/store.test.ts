import { setTimeout as delay } from 'node:timers/promises'
import { Annotation, END, START, StateGraph } from '@langchain/langgraph'
import { InMemoryStore, type Operation } from '@langchain/langgraph-checkpoint'
import fc from 'fast-check'
import { sql } from 'kysely'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { engines, type TestDatabase } from '../../../test/harness.ts'
import { type StoreOptions, type StorePut, ThreadbaseStore } from './service.ts'

const keysOf = (items: { key: string }[]) => items.map(({ key }) => key).sort()

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

    let users = 0
    let store: ThreadbaseStore
    const newStore = (options: StoreOptions = {}) =>
      new ThreadbaseStore(opened.database, { userId: `user-${users}`, ...options })
    beforeEach(() => {
      users++
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

    describe('filters', () => {
      const values: Record<string, Record<string, unknown>> = {
        null: { x: null },
        none: {},
        one: { x: 1 },
        two: { x: 2.5 },
        big: { x: 1e15 },
        text: { x: 'b' },
        upper: { x: 'Z' },
        number_text: { x: '1' },
        empty: { x: '' },
        yes: { x: true },
        no: { x: false },
        list: { x: [1, 2] },
        object: { x: { a: { b: 1 }, c: 'd' } },
        nul: { x: 'a\0b' },
      }
      const others = (...keys: string[]) =>
        Object.keys(values)
          .filter((key) => !keys.includes(key))
          .sort()
      beforeEach(async () => {
        const puts = Object.entries(values).map(([key, value]) => ({ namespace: ['f'], key, value }))
        await store.batch(puts)
      })
      test.each<[name: string, x: unknown, found: string[]]>([
        ['null', null, ['null']],
        ['nothing', undefined, ['none']],
        ['a number', 1, ['one']],
        ['a fraction', 2.5, ['two']],
        ['a text', 'b', ['text']],
        ['the empty text', '', ['empty']],
        ['a text with NUL', 'a\0b', ['nul']],
        ['true', true, ['yes']],
        ['false', { $eq: false }, ['no']],
        ['an array', [1, 2], ['list']],
        ['a part of an array', [1], []],
        ['an object, whatever the order of its keys', { c: 'd', a: { b: 1 } }, ['object']],
        ['a part of an object', { c: 'd' }, []],
        ['$eq null', { $eq: null }, ['null']],
        ['$eq an object', { $eq: { a: { b: 1 }, c: 'd' } }, ['object']],
        ['$ne null', { $ne: null }, others('null')],
        ['$ne a number', { $ne: 1 }, others('one')],
        ['$ne a text', { $ne: 'b' }, others('text')],
        ['$ne nothing', { $ne: undefined }, others('none')],
        ['$ne an object', { $ne: { a: { b: 1 }, c: 'd' } }, others('object')],
        ['$gt a number', { $gt: 1 }, ['big', 'two']],
        ['$gte a number', { $gte: 1 }, ['big', 'one', 'two']],
        ['$lt a number', { $lt: 2.5 }, ['one']],
        ['$lte a number', { $lte: 2.5 }, ['one', 'two']],
        ['$gt on strings', { $gt: '1' }, ['nul', 'text', 'upper']],
        ['$lt on strings, by code point', { $lt: 'a' }, ['empty', 'number_text', 'upper']],
        ['$gte and $lt', { $gte: 'Z', $lt: 'b' }, ['nul', 'upper']],
        ['$lte a text', { $lte: '1' }, ['empty', 'number_text']],
        ['$lt true', { $lt: true }, ['no']],
        ['$gte false', { $gte: false }, ['no', 'yes']],
        ['$gt null', { $gt: null }, []],
        ['$lte null', { $lte: null }, ['null']],
        ['$gt an array', { $gt: [1] }, ['list']],
        ['$in', { $in: [1, 'b', null] }, ['null', 'one', 'text']],
        ['$nin', { $nin: [1, 'b', null] }, others('null', 'one', 'text')],
        ['an empty object', {}, []],
      ])('%s', async (_, x, found) => {
        expect(keysOf(await store.search(['f'], { filter: { x }, limit: 100 }))).toEqual(found)
      })

      test('all of several fields must hold, whatever their names', async () => {
        await store.put(['g'], 'k', { 'a.b': 1, "it's": { $x: 2 }, 'n\0': 3 })
        const search = (filter: Record<string, unknown>) => store.search(['g'], { filter })
        expect(await search({ 'a.b': 1, 'n\0': 3 })).toHaveLength(1)
        expect(await search({ 'a.b': { $lt: 2 }, 'n\0': 4 })).toHaveLength(0)
        expect(await search({ "it's": { $eq: { $x: 2 } } })).toHaveLength(1)
      })
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

    describe('time to live', () => {
      const rows = async () => {
        const { n } = await opened.database.db
          .selectFrom('store')
          .select((e) => e.fn.countAll().as('n'))
          .where('user_id', '=', `user-${users}`)
          .executeTakeFirstOrThrow()
        return Number(n)
      }
      /** As if that much time had passed for the items of the user. */
      const pass = (seconds: number) =>
        sql`update ${sql.table('store')} set expires_at = expires_at - ${seconds} * interval '1 second'
             where user_id = ${`user-${users}`}`.execute(opened.database.db)

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
        await expect.poll(rows).toBe(0)
      })
    })

    describe('a query without embeddings', () => {
      test('finds items by any of the words, the best first', async () => {
        await store.put(['q'], 'both', { text: 'She drinks green tea', tags: ['morning'] })
        await store.put(['q'], 'one', { text: 'Coffee in the morning' })
        await store.put(['q'], 'none', { text: 'Nothing here', green_tea: 0 })
        const found = await store.search(['q'], { query: "what tea in the 'morning' | & ! \\ :*" })
        expect(found.map(({ key }) => key)).toEqual(['one', 'both'])
        expect((await store.search(['q'], { query: 'TEA green' })).map(({ key }) => key)).toEqual(['both'])
        for (const { score } of found) expect(score).toBeGreaterThan(0)
        expect(await store.search(['q'], { query: '!!!' })).toEqual([])
        expect(await store.search(['q'], { query: 'a\0b \ud800' })).toEqual([])
        expect(await store.search(['q'], { query: '' })).toHaveLength(3)
        expect(await store.search(['q'], { query: 'morning', filter: { tags: ['morning'] } })).toHaveLength(1)
      })

      test('finds them by the fields that are indexed, and not by others', async () => {
        await store.put(['q'], 'title', { title: 'alpha', body: 'beta' }, ['title'])
        await store.put(['q'], 'parts', { parts: [{ t: 'gamma' }, { t: 'delta' }], body: 'alpha' }, [
          'parts[*].t',
        ])
        await store.put(['q'], 'hidden', { title: 'alpha' }, false)
        const find = async (query: string) => keysOf(await store.search(['q'], { query }))
        expect(await find('alpha')).toEqual(['title'])
        expect(await find('beta')).toEqual([])
        expect(await find('delta')).toEqual(['parts'])
        await store.put(['q'], 'title', { title: 'omega' })
        expect(await find('alpha')).toEqual([])
        expect(await find('omega')).toEqual(['title'])
      })

      test('takes long texts', async () => {
        const text = Array.from({ length: 60_000 }, (_, i) => `word${i}`).join(' ')
        await store.put(['q'], 'long', { text: `start ${text} ${'x'.repeat(5_000)}` })
        expect(await store.search(['q'], { query: 'start' })).toHaveLength(1)
      })
    })

    describe('users', () => {
      test('one finds nothing of the other', async () => {
        const [a, b] = [opened.tb.forUser('store-a').store, opened.tb.forUser('store-b').store]
        await a.put(['n'], 'k', { text: 'secret' })
        await b.put(['n'], 'k', { text: 'other' })
        expect((await b.get(['n'], 'k'))?.value).toEqual({ text: 'other' })
        expect(await b.search([], { query: 'secret' })).toEqual([])
        await b.delete(['n'], 'k')
        expect(await b.listNamespaces()).toEqual([])
        expect((await a.get(['n'], 'k', { userId: 'store-b' }))?.value).toEqual({ text: 'secret' })
      })

      test('a store of nobody has the user of the call, or the default', async () => {
        const { store: any } = opened.tb
        await any.put(['n'], 'k', { of: 'c' }, undefined, { userId: 'store-c' })
        expect((await any.get(['n'], 'k', { userId: 'store-c' }))?.value).toEqual({ of: 'c' })
        expect(await any.search([], { userId: 'store-d' })).toEqual([])
        await expect(any.search([])).rejects.toMatchObject({
          code: 'invalid_input',
          details: { field: 'userId' },
        })
        const mine = newStore({ userId: undefined, defaultUserId: 'store-c' })
        expect((await mine.get(['n'], 'k'))?.value).toEqual({ of: 'c' })
      })

      const State = Annotation.Root({ seen: Annotation<string[]> })
      const namesIn = (found: { value: Record<string, unknown> }[] = []) =>
        found.map(({ value }) => String(value.name))
      /** It stores the name of its user and then reads all that there is, through the store of the run. */
      const builder = new StateGraph(State)
        .addNode('write', async (_, { store: memory, configurable }) => {
          await memory?.put(['facts'], 'me', { name: configurable?.user_id })
          return {}
        })
        .addNode('read', async (_, { store: memory }) => ({ seen: namesIn(await memory?.search([])) }))
        .addEdge(START, 'write')
        .addEdge('write', 'read')
        .addEdge('read', END)
      const names = ['run-1', 'run-2', 'run-3']

      test('a graph takes the store of a user with each run, for runs at the same time too', async () => {
        const graph = builder.compile()
        const run = (user_id: string) =>
          graph.invoke({ seen: [] }, { configurable: { user_id }, store: opened.tb.forUser(user_id).store })
        const results = await Promise.all(names.map(run))
        expect(results.map(({ seen }) => seen)).toEqual(names.map((name) => [name]))
      })

      test('a graph that is compiled with the store of nobody is refused', async () => {
        const graph = builder.compile({ store: opened.tb.store })
        const running = graph.invoke({ seen: [] }, { configurable: { user_id: 'run-1' } })
        await expect(running).rejects.toMatchObject({ code: 'invalid_input', details: { field: 'userId' } })
      })

      test('a node that calls the store of nobody itself calls it for the user of its run', async () => {
        const { store: any } = opened.tb
        const graph = new StateGraph(State)
          .addNode('both', async (_, { configurable }) => {
            await any.put(['own'], 'me', { name: configurable?.user_id })
            return { seen: namesIn(await any.search(['own'])) }
          })
          .addEdge(START, 'both')
          .addEdge('both', END)
          .compile()
        const run = (user_id: string) => graph.invoke({ seen: [] }, { configurable: { user_id } })
        const results = await Promise.all(names.map(run))
        expect(results.map(({ seen }) => seen)).toEqual(names.map((name) => [name]))
        await expect(graph.invoke({ seen: [] })).rejects.toMatchObject({ code: 'invalid_input' })
      })
    })

    test('it does what InMemoryStore does, for any operations', async () => {
      const label = fc.constantFrom('a', 'b', 'ab', 'a b', '日')
      const namespace = fc.array(label, { minLength: 1, maxLength: 3 })
      const key = fc.constantFrom('1', '2')
      const scalar = fc.constantFrom<unknown>(null, 1, 2, 'x', 'y', true)
      const value = fc.record({ f: scalar, g: scalar }, { requiredKeys: [] })
      const filter = fc.dictionary(
        fc.constantFrom('f', 'g'),
        fc.oneof(
          scalar,
          fc.record({ $ne: scalar }),
          fc.record({ $eq: scalar }),
          fc.record({ $in: fc.array(scalar) }),
        ),
        { maxKeys: 2 },
      )
      const pattern = fc.array(fc.oneof(label, fc.constant('*')), { minLength: 1, maxLength: 2 })
      const condition = fc.record({
        matchType: fc.constantFrom('prefix' as const, 'suffix' as const),
        path: pattern,
      })
      const operation = fc.oneof(
        { weight: 3, arbitrary: fc.record({ namespace, key, value: fc.option(value) }) },
        fc.record({ namespace, key }),
        fc.record({
          namespacePrefix: fc.array(label, { maxLength: 2 }),
          filter: fc.option(filter, { nil: undefined }),
          limit: fc.constant(1_000),
        }),
        fc.record({
          matchConditions: fc.array(condition, { maxLength: 2 }),
          maxDepth: fc.option(fc.integer({ min: 1, max: 3 }), { nil: undefined }),
          limit: fc.constant(1_000),
          offset: fc.constant(0),
        }),
      )
      const plain = (result: unknown): unknown => {
        if (!Array.isArray(result)) return result === null || result === undefined ? null : toPlain(result)
        return result.map((one) => JSON.stringify(Array.isArray(one) ? one : toPlain(one))).sort()
      }
      const toPlain = (item: object) => {
        const { namespace: at, key: name, value: held } = item as Record<string, unknown>
        return [at, name, Object.entries(held as object).sort()]
      }
      const batches = fc.array(fc.array(operation, { maxLength: 6 }), { maxLength: 6 })
      await fc.assert(
        fc.asyncProperty(batches, async (all) => {
          users++
          const ours = newStore()
          const oracle = new InMemoryStore()
          for (const operations of all as Operation[][]) {
            const expected = await oracle.batch(operations)
            const found = await ours.batch(operations)
            expect((found as unknown[]).map(plain)).toEqual((expected as unknown[]).map(plain))
            forgetEmpty(oracle)
          }
        }),
        { numRuns: 60, interruptAfterTimeLimit: 40_000 },
      )
    })
  })
}

/** It would go on to list namespaces whose items were all removed. */
function forgetEmpty(oracle: InMemoryStore): void {
  const { data } = oracle as unknown as { data: Map<string, Map<string, unknown>> }
  for (const [namespace, items] of data) if (items.size === 0) data.delete(namespace)
}
