import { sql } from 'kysely'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { engines, type TestDatabase } from '../../test/harness.ts'
import { embedAll, vectorOf, wordEmbedder } from '../../test/word-embedder.ts'
import { ThreadbaseError } from '../core/errors.ts'
import { silentLog } from '../core/log.ts'
import { RRF_K } from './repo.ts'
import type { SearchPage, SearchQuery } from './schema.ts'
import { createSearchService } from './service.ts'
import { createVectors, prepareVectors } from './vectors/service.ts'

const A = { userId: 'alice' }
const B = { userId: 'bob' }
const WORDS =
  'red green blue black white large small old new fast slow car boat train plane house tree'.split(' ')

/** Sentences of words that come again, each another one. */
const sentence = (n: number) =>
  [3, 5, 7, 11].map((step) => WORDS[(n * step + (n >> 3)) % WORDS.length]).join(' ')

for (const engine of engines) {
  describe.skipIf(!engine.available)(`search by meaning on ${engine.name}`, () => {
    const embedder = wordEmbedder()
    let opened: TestDatabase
    const said = new Map<string, { text: string; at: number; thread: string }>()
    const search = (q: string, more: Partial<SearchQuery> = {}, user = A) =>
      opened.tb.search.messages(user, { q, mode: 'semantic', ...more })
    const idsOf = ({ items }: SearchPage) => items.map(({ message }) => message?.id)
    beforeAll(async () => {
      opened = await engine.open({ embedder, background: false })
      const { threads, messages, sessions, analyses } = opened.tb
      for (const user of [A, B]) {
        for (let n = 0; n < 6; n++) {
          const { id } = await threads.create(user, { kind: n === 5 ? 'council' : 'chat' })
          const texts = Array.from({ length: 20 }, (_, i) => sentence(20 * n + i))
          const stored = await messages.append(
            user,
            id,
            texts.map((content) => ({ role: 'user', content })),
          )
          if (user === A)
            for (const { id: message, createdAt } of stored)
              said.set(message, {
                text: texts[stored.findIndex((one) => one.id === message)] as string,
                at: createdAt.getTime(),
                thread: id,
              })
          if (n === 4) await threads.archive(user, id)
        }
      }
      void sessions
      void analyses
      await embedAll(opened.database, embedder)
    })
    afterAll(() => opened?.close())

    /** Those that are looked at, nearest first, compared one by one. */
    const nearest = (q: string, keep: (thread: string) => boolean) => {
      const wanted = vectorOf(q)
      const score = (text: string) => vectorOf(text).reduce((sum, x, i) => sum + x * (wanted[i] as number), 0)
      return [...said]
        .filter(([, { thread }]) => keep(thread))
        .map(([id, { text, at }]) => ({ id, at, score: score(text) }))
        .sort((a, b) => b.score - a.score || b.at - a.at || (a.id < b.id ? 1 : -1))
    }
    const threadsOf = async (more: object = {}) =>
      new Set((await opened.tb.threads.list(A, { limit: 100, ...more })).items.map(({ id }) => id))

    test('gives the nearest in order, each with its score', async () => {
      const shown = await threadsOf()
      for (const q of ['red car', 'slow old boat', 'a house', 'nothing of this']) {
        const { items, ...how } = await search(q, { limit: 100 })
        expect(how).toMatchObject({ mode: 'semantic', method: null, degraded: null })
        const expected = nearest(q, (thread) => shown.has(thread)).slice(0, 100)
        for (const [i, { score }] of items.entries())
          expect(score).toBeCloseTo(expected[i]?.score as number, 5)
        // scores of the database and of here differ in their last digits: equals may stand otherwise
        const scores = new Map(expected.map(({ id, score }) => [id, score.toFixed(5)]))
        for (const [i, { message }] of items.entries())
          expect(scores.get(message?.id as string)).toBe(expected[i]?.score.toFixed(5))
      }
    })

    test('filters', async () => {
      const { items } = await search('red', { kind: 'council', limit: 100 })
      expect(items).toHaveLength(20)
      expect(items.every(({ thread }) => thread.kind === 'council')).toBe(true)
      expect((await search('red', { limit: 100 })).nextCursor).toBeUndefined()
      expect((await search('red', { limit: 100, includeArchived: true })).nextCursor).toBeDefined()
      expect((await search('red', { role: 'tool' })).items).toEqual([])
    })

    test('pages follow each other', async () => {
      const all = idsOf(await search('old train', { limit: 100 }))
      const seen: unknown[] = []
      let cursor: string | undefined
      do {
        const page = await search('old train', { limit: 7, cursor })
        seen.push(...idsOf(page))
        cursor = page.nextCursor
      } while (cursor !== undefined)
      expect(seen).toEqual(all)
    })

    test('the query of a next page is not embedded anew', async () => {
      const { nextCursor: cursor } = await search('embedded once', { limit: 3 })
      await search('embedded once', { limit: 3, cursor })
      expect(embedder.calls.filter(([text]) => text === 'embedded once')).toHaveLength(1)
    })

    test('text that is near without the words begins at its beginning', async () => {
      const { items } = await search('unheard', { limit: 1 })
      expect(items[0]?.snippet).toBe(said.get(items[0]?.message?.id as string)?.text)
      const [near] = (await search('red', { limit: 1 })).items
      expect(near?.snippet).toContain('<mark>red</mark>')
    })

    test('hybrid is what both lists say together', async () => {
      for (const q of ['red car', 'old', 'slow boat house', 'gree', 'zzz']) {
        const [hybrid, byText, byMeaning] = await Promise.all([
          search(q, { mode: 'hybrid', limit: 100 }),
          search(q, { mode: 'text', limit: 100 }),
          search(q, { limit: 100 }),
        ])
        const scores = new Map<string | undefined, number>()
        for (const [i, id] of (byText.method === 'substring' ? [] : idsOf(byText)).entries())
          scores.set(id, 1 / (RRF_K + i + 1))
        for (const [i, id] of idsOf(byMeaning).entries())
          scores.set(id, (scores.get(id) ?? 0) + 1 / (RRF_K + i + 1))
        const expected = [...scores].sort(
          ([a, x], [b, y]) =>
            y - x ||
            (said.get(b as string)?.at as number) - (said.get(a as string)?.at as number) ||
            ((a as string) < (b as string) ? 1 : -1),
        )
        expect(hybrid).toMatchObject({ mode: 'hybrid', degraded: null })
        expect(hybrid.items.map(({ message, score }) => [message?.id, score])).toEqual(expected.slice(0, 100))
      }
    })

    test('hybrid is the default, and its pages follow each other while others write', async () => {
      const all = idsOf(await search('blue plane', { mode: undefined, limit: 100 }))
      const seen: unknown[] = []
      let cursor: string | undefined
      do {
        const page = await search('blue plane', { mode: undefined, limit: 9, cursor })
        expect(page.mode).toBe('hybrid')
        seen.push(...idsOf(page))
        cursor = page.nextCursor
        if (seen.length === 18) {
          const { id } = await opened.tb.threads.create(A)
          await opened.tb.messages.append(A, id, [{ role: 'user', content: 'blue plane' }])
          await embedAll(opened.database, embedder)
        }
      } while (cursor !== undefined)
      expect(seen.slice(0, 100)).toEqual(all)
    })

    test('by the index there are pages to the end, also of rows that are equally near, and none of others', async () => {
      const user = { userId: 'carol' }
      for (const who of [user, B]) {
        const { id } = await opened.tb.threads.create(who)
        const texts = [
          ...Array.from({ length: 30 }, () => 'yes'),
          ...Array.from({ length: 40 }, (_, n) => sentence(n)),
        ]
        for (const content of texts) await opened.tb.messages.append(who, id, [{ role: 'user', content }])
      }
      await embedAll(opened.database, embedder)
      const byIndex = createSearchService(opened.database, {
        ...{ embedder, trigrams: async () => undefined, exactUpTo: 0 },
        vectors: createVectors(opened.database, { probes: undefined }),
      })
      const own = idsOf(await search('yes', { limit: 100 }, user))
      expect(own).toHaveLength(70)
      for (const q of ['yes', 'red car']) {
        const seen: unknown[] = []
        let cursor: string | undefined
        do {
          const page = await byIndex.messages(user, { q, mode: 'semantic', limit: 9, cursor })
          seen.push(...idsOf(page))
          cursor = page.nextCursor
        } while (cursor !== undefined)
        expect(new Set(seen).size).toBe(seen.length)
        expect(seen.toSorted()).toEqual(own.toSorted())
      }
      const part = await byIndex.messages(user, { q: 'yes -red', mode: 'semantic', limit: 100 })
      expect(part.items.some(({ snippet }) => snippet.includes('red'))).toBe(false)
      expect(part.items.length).toBeGreaterThan(30)
    })

    test('vectors of another model are in another space', async () => {
      const other = createSearchService(opened.database, {
        ...{ embedder: wordEmbedder('other'), trigrams: async () => undefined },
        vectors: createVectors(opened.database, { probes: undefined }),
      })
      expect((await other.messages(A, { q: 'red', mode: 'semantic' })).items).toEqual([])
    })

    describe('without vectors', () => {
      const without = (options: object) =>
        createSearchService(opened.database, {
          trigrams: async () => undefined,
          vectors: createVectors(opened.database, { probes: undefined }),
          embedder,
          ...options,
        })
      const broken = {
        ...embedder,
        embed: () => Promise.reject(new ThreadbaseError('unavailable', 'asleep')),
      }
      const odd = { ...embedder, embed: async () => [new Float32Array(3)] }
      const gone = { space: async () => ({ available: false as const }), isLoss: () => false }
      test.each([
        ['no model', { embedder: undefined }, /EMBEDDING_MODEL/],
        ['a model that does not answer', { embedder: broken }, /asleep/],
        ['a model that gives something else', { embedder: odd }, /another kind/],
        ['no extension', { vectors: gone }, /extension vector/],
      ])('%s: semantic is unavailable, hybrid says it is less', async (what, options, why) => {
        const service = without(options)
        const semantic = service.messages(A, { q: 'never asked before', mode: 'semantic' })
        await expect(semantic).rejects.toMatchObject({
          code: 'unavailable',
          message: expect.stringMatching(why),
        })
        const hybrid = await service.messages(A, { q: 'red car', mode: 'hybrid' })
        expect(hybrid).toMatchObject({ mode: 'text', degraded: expect.stringMatching(why) })
        expect(hybrid.items.length).toBeGreaterThan(0)
        const next = await service.messages(A, { q: 'red car', mode: 'hybrid', limit: 1 })
        const { nextCursor: cursor } = next
        const later = await service.messages(A, { q: 'red car', mode: 'hybrid', limit: 1, cursor })
        expect(later.degraded).toMatch(/by words alone/)
        const usual = await service.messages(A, { q: 'red car' })
        expect(usual.mode).toBe('text')
        expect(usual.degraded === null).toBe(what === 'no model')
      })

      test('the column is dropped while it is in use: text still works', async () => {
        const { db, schema } = opened.database
        const service = without({})
        await service.messages(A, { q: 'red', mode: 'semantic' })
        await sql`alter table ${sql.id(schema, 'messages')} drop column embedding`.execute(db)
        await expect(service.messages(A, { q: 'red', mode: 'semantic' })).rejects.toMatchObject({
          code: 'unavailable',
        })
        const { mode, items } = await service.messages(A, { q: 'red' })
        expect([mode, items.length > 0]).toEqual(['text', true])
        await prepareVectors(opened.database, { index: 'hnsw', change: true }, silentLog)
      })
    })
  })
}
