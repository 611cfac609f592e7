import { Document } from '@langchain/core/documents'
import { Embeddings } from '@langchain/core/embeddings'
import { StringOutputParser } from '@langchain/core/output_parsers'
import { ChatPromptTemplate } from '@langchain/core/prompts'
import { RunnablePassthrough, RunnableSequence } from '@langchain/core/runnables'
import { FakeVectorStore } from '@langchain/core/utils/testing'
import { ChatOpenAI } from '@langchain/openai'
import fc from 'fast-check'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { engines, recordingLog, type TestDatabase } from '../../test/harness.ts'
import { vectorOf } from '../../test/openai-embeddings.ts'
import { startOpenAiServer, textOf } from '../../test/openai-server.ts'
import { openLocal } from '../embeddings/local.ts'
import { ThreadbaseVectorStore } from '../langchain.ts'

/** Texts that share words are near. */
class WordEmbeddings extends Embeddings {
  readonly length: number
  constructor(length: number) {
    super({})
    this.length = length
  }
  async embedDocuments(texts: string[]): Promise<number[][]> {
    return texts.map((text) => [...vectorOf(text, this.length)])
  }
  async embedQuery(text: string): Promise<number[]> {
    return [...vectorOf(text, this.length)]
  }
}

const NOTES = [
  new Document({
    id: 'tea',
    pageContent: 'green tea in the morning',
    metadata: { kind: 'drink', year: 2020, tags: ['a'] },
  }),
  new Document({ id: 'coffee', pageContent: 'coffee at night', metadata: { kind: 'drink', year: 2022 } }),
  new Document({
    id: 'both',
    pageContent: 'tea and coffee',
    metadata: { kind: 'mixed', year: 2024, deep: { of: 1 } },
  }),
  new Document({ id: 'bike', pageContent: 'a red bicycle', metadata: {} }),
]

for (const engine of engines) {
  describe.skipIf(!engine.available)(`vector stores on ${engine.name}`, () => {
    let opened: TestDatabase
    const local = openLocal({ log: recordingLog().log })
    beforeAll(async () => {
      opened = await engine.open({ embedder: local, background: false })
    })
    afterAll(() => opened?.close())
    let users = 0
    let userId: string
    beforeEach(() => {
      userId = `vector-store-${++users}`
    })
    const fields = (collection?: string, user = userId) => ({
      threadbase: opened.tb,
      userId: user,
      collection,
    })
    const open = (length = 32, collection?: string) =>
      new ThreadbaseVectorStore(new WordEmbeddings(length), fields(collection))
    const filled = async () => {
      const store = open()
      await store.addDocuments(NOTES)
      return store
    }
    const ids = (documents: { id?: string }[]) => documents.map(({ id }) => id)

    test.each([3, 32, 384, 1_536, 3_072])(
      'vectors of %i numbers: what is near, with the scores of another store',
      async (length) => {
        const embeddings = new WordEmbeddings(length)
        const oracle = await FakeVectorStore.fromDocuments(NOTES, embeddings)
        const store = await ThreadbaseVectorStore.fromDocuments(NOTES, embeddings, fields())
        for (const query of ['tea', 'red coffee', 'nothing of it']) {
          const wanted = await oracle.similaritySearchWithScore(query, 4)
          const found = await store.similaritySearchWithScore(query, 4)
          // that one forgets ids
          expect(found.map(([{ pageContent, metadata }]) => ({ pageContent, metadata }))).toEqual(
            wanted.map(([{ pageContent, metadata }]) => ({ pageContent, metadata })),
          )
          for (const [i, [, score]] of found.entries()) expect(score).toBeCloseTo(wanted[i]?.[1] as number, 3)
        }
        expect(await store.similaritySearch('tea', 1)).toHaveLength(1)
      },
    )

    test('ids: those given, those of documents, new ones; a known one is replaced', async () => {
      const store = open()
      expect(await store.addDocuments(NOTES.slice(0, 2), { ids: ['x', 'y'] })).toEqual(['x', 'y'])
      expect(await store.addDocuments(NOTES.slice(0, 2))).toEqual(['tea', 'coffee'])
      const [made] = await store.addDocuments([new Document({ pageContent: 'new' })])
      expect(made).toMatch(/^[0-9a-f-]{36}$/)
      await store.addDocuments([new Document({ id: 'tea', pageContent: 'black tea', metadata: { n: 2 } })])
      const found = await store.similaritySearch('black tea', 10)
      expect(found).toHaveLength(5)
      expect(found[0]).toEqual(new Document({ id: 'tea', pageContent: 'black tea', metadata: { n: 2 } }))
      expect(await store.addDocuments([])).toEqual([])
    })

    test.each([
      ['a value', { kind: 'drink' }, ['coffee', 'tea']],
      ['two values', { kind: 'drink', year: 2020 }, ['tea']],
      ['operators', { year: { $gte: 2021, $lt: 2024 } }, ['coffee']],
      ['one of', { kind: { $in: ['mixed', 'other'] } }, ['both']],
      ['none of', { kind: { $nin: ['mixed'] } }, ['bike', 'coffee', 'tea']],
      ['another', { kind: { $ne: 'drink' } }, ['bike', 'both']],
      ['a list', { tags: ['a'] }, ['tea']],
      ['an object', { deep: { of: 1 } }, ['both']],
      ['what nobody has', { kind: 'x' }, []],
      ['a field of the document itself', { pageContent: 'tea and coffee' }, []],
      ['no field', {}, ['bike', 'both', 'coffee', 'tea']],
    ])('a filter of %s', async (_, filter, wanted) => {
      const store = await filled()
      expect(ids(await store.similaritySearch('tea', 10, filter)).sort()).toEqual(wanted)
    })

    test('delete: by ids, by filter, all; and it says which', async () => {
      const store = await filled()
      const other = open(32, 'other')
      await other.addDocuments(NOTES)
      await store.delete({ ids: ['tea', 'unknown'] })
      expect(ids(await store.similaritySearch('x', 10)).sort()).toEqual(['bike', 'both', 'coffee'])
      await store.delete({ filter: { year: { $gt: 2023 } } })
      expect(ids(await store.similaritySearch('x', 10)).sort()).toEqual(['bike', 'coffee'])
      for (const wrong of [
        undefined,
        {},
        { filter: {} },
        { ids: ['bike'], deleteAll: true },
        { ids: 'bike' as never },
      ])
        await expect(store.delete(wrong)).rejects.toMatchObject({ code: 'invalid_input' })
      await store.delete({ deleteAll: true })
      expect(await store.similaritySearch('x', 10)).toEqual([])
      expect(await other.similaritySearch('x', 10)).toHaveLength(4)
    })

    test('maximal marginal relevance leaves out what says the same', async () => {
      const store = open(64)
      const texts = ['tea tea tea', 'tea', 'tea tea', 'coffee', 'bicycle']
      await store.addDocuments(texts.map((pageContent) => new Document({ pageContent })))
      const near = await store.similaritySearch('tea tea coffee', 2)
      const found = await store.maxMarginalRelevanceSearch('tea tea coffee', { k: 2 })
      expect(near.map(({ pageContent }) => pageContent)).not.toContain('coffee')
      expect(found.map(({ pageContent }) => pageContent)).toEqual([expect.stringMatching('tea'), 'coffee'])
      const retriever = store.asRetriever({ k: 2, searchType: 'mmr', searchKwargs: { fetchK: 5 } })
      expect(await retriever.invoke('tea tea coffee')).toEqual(found)
    })

    test('texts and metadata come back as they are', async () => {
      const store = open(8)
      const json = fc.dictionary(fc.string(), fc.jsonValue({ maxDepth: 2 }), { maxKeys: 4 })
      await fc.assert(
        fc.asyncProperty(fc.string({ unit: 'grapheme' }), json, async (pageContent, metadata) => {
          await store.addVectors([[1, 0, 0, 0, 0, 0, 0, 0]], [{ id: 'one', pageContent, metadata }])
          const [[found] = []] = await store.similaritySearchVectorWithScore([1, 0, 0, 0, 0, 0, 0, 0], 1)
          expect(found).toMatchObject({ id: 'one', pageContent })
          expect(found?.metadata).toEqual(JSON.parse(JSON.stringify(metadata)))
        }),
        { numRuns: 30 },
      )
      const odd = { pageContent: 'a\u0000b', metadata: { '\u0000': '\u0000' }, id: 'odd' }
      await store.addVectors([[0, 1, 0, 0, 0, 0, 0, 0]], [odd])
      const [[found] = []] = await store.similaritySearchVectorWithScore([0, 1, 0, 0, 0, 0, 0, 0], 1)
      expect(found).toMatchObject(odd)
    })

    test('collections and lengths are apart', async () => {
      await open(32, 'a').addDocuments(NOTES.slice(0, 1))
      await open(64, 'a').addDocuments(NOTES.slice(1, 2))
      await open(32, 'b').addDocuments(NOTES.slice(2, 3))
      expect(ids(await open(32, 'a').similaritySearch('x', 9))).toEqual(['tea'])
      expect(ids(await open(64, 'a').similaritySearch('x', 9))).toEqual(['coffee'])
      expect(ids(await open(32, 'b').similaritySearch('x', 9))).toEqual(['both'])
      expect(await open(32).similaritySearch('x', 9)).toEqual([])
    })

    test('another user finds nothing of it, and removes nothing', async () => {
      const store = await filled()
      const other = new ThreadbaseVectorStore(new WordEmbeddings(32), fields(undefined, `${userId}-b`))
      expect(await other.similaritySearch('tea', 9)).toEqual([])
      await other.delete({ deleteAll: true })
      await other.delete({ ids: ['tea'] })
      await other.addDocuments([new Document({ id: 'tea', pageContent: 'of B' })])
      expect(await store.similaritySearch('tea', 9)).toHaveLength(4)
      expect((await store.similaritySearch('tea in the morning', 1))[0]?.pageContent).toBe(
        NOTES[0]?.pageContent,
      )
    })

    test('2,400 documents, more than a statement takes and than are compared one by one', async () => {
      const store = open(16, 'many')
      const documents = Array.from({ length: 2_400 }, (_, i) => ({
        pageContent: `number ${i}`,
        metadata: { n: i },
      }))
      await store.addDocuments(documents)
      const found = await store.similaritySearch('number 1234', 3, { n: { $gte: 1_000 } })
      expect(found[0]?.metadata).toEqual({ n: 1_234 })
      expect(await store.similaritySearch('number 7', 5, { n: { $lt: 3 } })).toHaveLength(3)
      await store.delete({ deleteAll: true })
    })

    test('what cannot be is refused, and says why', async () => {
      const store = open(4)
      const [one] = NOTES
      const refused = (call: Promise<unknown>, says: RegExp) =>
        expect(call).rejects.toMatchObject({ code: 'invalid_input', message: expect.stringMatching(says) })
      const add = (vector: number[], document: object = {}, options = {}) =>
        store.addVectors([vector], [{ ...(one as Document), ...document }], options)
      await refused(add([1, Number.NaN, 0, 0]), /no number/)
      await refused(add([]), /1 to 16000/)
      await refused(store.addVectors([[1, 2], [1]], [one as Document, one as Document]), /1 numbers.*2/)
      await refused(store.addVectors([], [one as Document]), /0 vectors for 1/)
      await refused(add([1, 0], {}, { ids: [] }), /0 ids for 1/)
      await refused(add([1, 0], { id: 'a\u0000' }), /NUL/)
      await refused(add([1, 0], { id: 'x'.repeat(3_000) }), /2400 bytes/)
      await refused(add([1, 0], { metadata: { n: 1n } }), /cannot be stored/)
      await refused(add([1, 0], { pageContent: 5 }), /pageContent/)
      await refused(store.similaritySearchVectorWithScore([1], -1), /limit/)
      await refused(store.similaritySearch('x', 1, { a: { $like: 'x' } }), /\$like/)
      await refused(open(4, '').similaritySearch('x'), /collection/)
      expect(() => new ThreadbaseVectorStore(undefined, fields('x', ''))).toThrow(/user/i)
    })

    test("Threadbase's own model when none is named, in a chain", async () => {
      const texts = [
        'Cats sleep most of the day.',
        'The stock market fell on Monday.',
        'Bread is baked from flour.',
      ]
      const store = await ThreadbaseVectorStore.fromTexts(
        texts,
        texts.map((_, n) => ({ n })),
        undefined,
        fields('own'),
      )
      const server = await startOpenAiServer(({ messages }) => ({ text: messages.map(textOf).join() }))
      const model = new ChatOpenAI({
        ...{ model: 'stand-in', apiKey: 'none', maxRetries: 0 },
        configuration: { baseURL: server.url },
      })
      const chain = RunnableSequence.from([
        {
          context: store
            .asRetriever({ k: 1 })
            .pipe((documents) => documents.map(({ pageContent }) => pageContent).join()),
          question: new RunnablePassthrough(),
        },
        ChatPromptTemplate.fromTemplate('{context} {question}'),
        model,
        new StringOutputParser(),
      ])
      expect(await chain.invoke('What do kittens like to do?')).toBe(
        `${texts[0]} What do kittens like to do?`,
      )
      expect(await chain.invoke('How did shares do?')).toContain(texts[1])
      expect(await store.asRetriever({ k: 3, filter: { n: 2 } }).invoke('animals')).toHaveLength(1)
      await server.close()
    })
  })
}
