import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { cosine, embedders, ODD_TEXTS, type OpenedEmbedder } from '../../test/real-embedders.ts'
import { DIMENSIONS, type Embedder } from './embedder.ts'
import { MAX_CHARS } from './text.ts'

const SENTENCES = [
  'I lost my umbrella on the bus.',
  'My umbrella, I left it on the bus!',
  'Interest rates rise in May.',
]

for (const { name, available, open } of embedders) {
  describe.skipIf(!available)(name, () => {
    let opened: OpenedEmbedder
    let embedder: Embedder
    beforeAll(async () => {
      opened = await open()
      embedder = opened.embedder
    })
    afterAll(() => opened?.close())

    test('says what it is', () => {
      expect(embedder.model).toMatch(/^[\w./-]{1,255}$/)
      expect(embedder.description.length).toBeGreaterThan(embedder.model.length)
      expect(embedder.batchSize).toBeGreaterThanOrEqual(1)
    })

    test('vectors of length 1, in the order of the texts; none for none', async () => {
      expect(await embedder.embed([])).toEqual([])
      const vectors = await embedder.embed(SENTENCES)
      expect(vectors.map(({ length }) => length)).toEqual([DIMENSIONS, DIMENSIONS, DIMENSIONS])
      for (const vector of vectors) {
        expect(vector).toBeInstanceOf(Float32Array)
        expect(Math.hypot(...vector)).toBeCloseTo(1, 5)
      }
      const [a, b, c] = vectors as [Float32Array, Float32Array, Float32Array]
      expect(cosine(a, b)).toBeGreaterThan(cosine(a, c) + 0.2)
    })

    test('a text has one vector, whatever comes with it', async () => {
      const texts = [...SENTENCES, 'Short.', 'A longer one that says more. '.repeat(8), SENTENCES[0] ?? '']
      const together = await embedder.embed(texts)
      for (const [i, text] of texts.entries()) {
        const [alone] = await embedder.embed([text], { urgent: i % 2 === 0 })
        expect(cosine(alone as Float32Array, together[i] as Float32Array)).toBeGreaterThan(0.99999)
      }
    })

    test.each(Object.entries(ODD_TEXTS))('%s', async (_, text) => {
      const [vector] = await embedder.embed([text])
      expect(vector).toHaveLength(DIMENSIONS)
      expect(Math.hypot(...(vector as Float32Array))).toBeCloseTo(1, 5)
    })

    test('a long text has the vector of its beginning', async () => {
      const text = 'She sells sea shells. '.repeat(50_000)
      const [whole, beginning] = await embedder.embed([text, text.slice(0, MAX_CHARS)])
      expect(whole).toEqual(beginning)
    })

    test('more texts than it takes at a time, calls side by side', async () => {
      const texts = Array.from({ length: embedder.batchSize + 3 }, (_, i) => `Number ${i % 5}`)
      const [first, second] = await Promise.all([embedder.embed(texts), embedder.embed(texts.slice(0, 5))])
      expect(first).toHaveLength(texts.length)
      for (const [i, vector] of first.entries())
        expect(cosine(vector, second[i % 5] as Float32Array)).toBeGreaterThan(0.99999)
    })

    test('who gives up gets the reason; others go on', async () => {
      const reason = new Error('no longer wanted')
      const gone = AbortSignal.abort(reason)
      await expect(embedder.embed(['x'], { signal: gone })).rejects.toBe(reason)
      const controller = new AbortController()
      const given = embedder.embed(SENTENCES, { signal: controller.signal })
      const kept = embedder.embed(SENTENCES)
      controller.abort(reason)
      await expect(given).rejects.toBe(reason)
      expect(await kept).toHaveLength(SENTENCES.length)
    })

    test('closing fails what is under way and what comes later, and may be done twice', async () => {
      const other = await open()
      const waiting = other.embedder.embed(SENTENCES)
      const failed = expect(waiting).rejects.toMatchObject({ code: 'unavailable' })
      await other.embedder.close()
      await failed
      await expect(other.embedder.embed(['x'])).rejects.toMatchObject({ code: 'unavailable' })
      await other.close()
    })
  })
}
