import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { engines, type TestDatabase } from '../../test/harness.ts'
import { embedAll, wordEmbedder } from '../../test/word-embedder.ts'
import { silentLog } from '../core/log.ts'
import { SEARCH_MODES } from './schema.ts'
import { prepareSearch } from './service.ts'

const A = { userId: 'alice' }
const B = { userId: 'bob' }
const HOSTILE = [
  '<script>alert("hotel")</script> hotel',
  '<mark>hotel</mark> \ue000hotel\ue001 \ue002b>',
  'hotel\' onmouseover=\'alert(1) "hotel" &amp; &lt;b&gt;',
  `${'long '.repeat(5_000)}<b>hotel</b>`,
  'hotel\u0000 \ud800 <a href="javascript:hotel()">hotel</a>',
  '<!-- hotel --> <![CDATA[hotel]]> <svg/onload=hotel>',
]
const TEXTS = [
  ...HOSTILE,
  'secret plans of the hotel, ERR-4711',
  'مرحبا بالعالم hotel',
  'to be or not to be',
  'running theater /srv/app/my_module.py',
]

const words = TEXTS.flatMap((text) => text.slice(0, 200).split(/\s+/)).filter((word) => word !== '')
const query = fc.oneof(
  fc.array(fc.constantFrom(...words, 'or', '-', '"', '-secret', '%', '_', 'alice', '\u0001alice'), {
    minLength: 1,
    maxLength: 6,
  }),
  fc.array(fc.string({ unit: 'binary', maxLength: 10 }), { minLength: 1, maxLength: 5 }),
)

for (const engine of engines) {
  describe.skipIf(!engine.available)(`whatever is looked for, on ${engine.name}`, () => {
    const embedder = wordEmbedder()
    let opened: TestDatabase
    let threads: string[]
    beforeAll(async () => {
      opened = await engine.open({ embedder, background: false })
      await prepareSearch(opened.database, { language: 'english', change: true }, silentLog)
      const { id } = await opened.tb.threads.create(A)
      const { id: session } = await opened.tb.threads.create(A, { kind: 'chain_analysis' })
      const messages = TEXTS.map((content) => ({ role: 'user' as const, content }))
      await opened.tb.messages.append(A, id, messages)
      await opened.tb.analyses.put(A, session, { summary: '<b>hotel</b> secret' } as never)
      threads = [id, session]
      await embedAll(opened.database, embedder)
    })
    afterAll(() => opened?.close())

    const asked = fc.record({
      q: query.map((parts) => parts.join(' ')).filter((q) => q.trim() !== '' && q.trim() !== '\u0000'),
      mode: fc.constantFrom(...SEARCH_MODES),
      archived: fc.boolean(),
      thread: fc.constantFrom(undefined, 0, 1),
    })

    test('B finds nothing of A, and A gets what is safe in a page', async () => {
      let found = 0
      await fc.assert(
        fc.asyncProperty(asked, async ({ q, mode, archived, thread }) => {
          const ask = {
            ...{ q, mode, includeArchived: archived },
            ...(thread === undefined ? {} : { threadId: threads[thread] as string }),
          }
          expect((await opened.tb.search.messages(B, ask)).items).toEqual([])
          const { items } = await opened.tb.search.messages(A, ask)
          found += items.length
          for (const { snippet, thread: of } of items) {
            expect(threads).toContain(of.id)
            expect(snippet.replace(/<\/?mark>/g, '')).not.toMatch(/[<>"']|&(?!(amp|lt|gt|quot|#39);)/)
            expect((snippet.match(/<\/?mark>/g) ?? []).join('')).toMatch(/^(<mark><\/mark>)*$/)
          }
        }),
        { numRuns: 60 },
      )
      expect(found).toBeGreaterThan(100)
    })

    test('hostile texts are shown as they are', async () => {
      const { items } = await opened.tb.search.messages(A, { q: 'hotel', mode: 'text', limit: 100 })
      const shown = items.map(({ snippet }) => snippet)
      expect(shown.length).toBeGreaterThanOrEqual(8)
      expect(shown.filter((snippet) => snippet.includes('<mark>hotel</mark>'))).toHaveLength(shown.length)
      expect(shown.some((snippet) => snippet.includes('script&gt;alert(&quot;'))).toBe(true)
    })

    test('results of sessions are found, and left out where a role is asked for', async () => {
      for (const mode of SEARCH_MODES) {
        const { items } = await opened.tb.search.messages(A, { q: 'secret hotel', mode, limit: 100 })
        const [result] = items.filter(({ type }) => type === 'analysis')
        expect(result).toMatchObject({
          message: null,
          analysis: { version: 1, updatedAt: expect.any(Date) },
          thread: { id: threads[1], kind: 'chain_analysis' },
        })
        const of = await opened.tb.search.messages(A, { q: 'secret hotel', mode, role: 'user', limit: 100 })
        expect(of.items.every(({ type }) => type === 'message')).toBe(true)
      }
    })

    test('typing errors are found by how they are spelt', async () => {
      const { items, method } = await opened.tb.search.messages(A, { q: 'theatre', mode: 'text' })
      expect([method, items[0]?.snippet]).toEqual([
        'similar',
        expect.stringContaining('<mark>theater</mark>'),
      ])
      const hybrid = await opened.tb.search.messages(A, { q: 'ERR-4171' })
      expect(hybrid).toMatchObject({ mode: 'hybrid', method: 'similar' })
    })
  })
}
