import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { engines, type TestDatabase } from '../../../test/harness.ts'
import { keysOf, storesOn } from '../../../test/stores.ts'
import type { ThreadbaseStore } from './service.ts'

for (const engine of engines) {
  describe.skipIf(!engine.available)(`filters of the store on ${engine.name}`, () => {
    let opened: TestDatabase
    beforeAll(async () => {
      opened = await engine.open()
    })
    afterAll(() => opened?.close())
    const { newStore } = storesOn(() => opened)
    let store: ThreadbaseStore
    beforeEach(() => {
      store = newStore()
    })

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
}
