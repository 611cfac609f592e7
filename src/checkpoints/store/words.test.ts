import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { engines, type TestDatabase } from '../../../test/harness.ts'
import { keysOf, storesOn } from '../../../test/stores.ts'
import type { ThreadbaseStore } from './service.ts'

for (const engine of engines) {
  describe.skipIf(!engine.available)(`a query without embeddings on ${engine.name}`, () => {
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
}
