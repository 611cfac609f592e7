import { randomUUID } from 'node:crypto'
import { sql } from 'kysely'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { embedWords, newTestEmbedder, type TestEmbedder } from '../../../test/embedders.ts'
import { countClaims, embeddingsOf, until, untilEmbedded } from '../../../test/embeddings.ts'
import { engines, openServices, recordingLog, type TestDatabase } from '../../../test/harness.ts'
import { ThreadbaseError } from '../../core/errors.ts'
import { silentLog } from '../../core/log.ts'
import { t } from '../../db/schema.ts'
import type { NewMessage } from '../../messages/schema.ts'
import { createVectors } from '../vectors/service.ts'
import { createEmbeddingService } from './service.ts'

const user = (content: string): NewMessage => ({ role: 'user', content })
const many = (count: number, text = 'tea and coffee') =>
  Array.from({ length: count }, (_, i) => user(`${text} ${i}`))
const rounded = (vector: ArrayLike<number> | null) =>
  vector === null ? null : Array.from(vector, (number) => Math.round(number * 1e4) / 1e4 + 0)
const FAST = { firstMs: 20, maxMs: 100, missingMs: 50 }

for (const engine of engines) {
  describe.skipIf(!engine.available)(`embedding in the background on ${engine.name}`, () => {
    let opened: TestDatabase
    let embedder: TestEmbedder
    beforeAll(async () => {
      embedder = newTestEmbedder()
      opened = await engine.open({ embedder, embedding: { backoff: FAST, leaseS: 2 } })
    })
    afterAll(() => opened?.close())

    let users = 0
    let scope: { userId: string }
    let thread: string
    beforeEach(async () => {
      embedder.faults = {}
      embedder.embedded.length = 0
      scope = { userId: `embedded-${++users}` }
      thread = (await opened.tb.threads.create(scope)).id
    })
    const append = (messages: NewMessage[]) => opened.tb.messages.append(scope, thread, messages)
    const done = () => untilEmbedded(opened.database, scope.userId)
    const rows = () => embeddingsOf(opened.database, scope.userId)

    test('DB-3: what is appended has its embedding soon', async () => {
      const texts = many(20)
      await append(texts)
      const found = await done()
      expect(found.map(({ embedding }) => rounded(embedding))).toEqual(
        texts.map(({ content }) => rounded(embedWords(String(content)))),
      )
      expect(embedder.embedded.toSorted()).toEqual(texts.map(({ content }) => content).toSorted())
      expect(await until(async () => (await countClaims(opened.database)) === 0, 'no claim is left')).toBe(
        true,
      )
    })

    test('of content that is no text, its text; of a tool, its name and answer, too', async () => {
      await append([
        { role: 'user', content: [{ type: 'text', text: 'in a part' }] },
        { role: 'tool', content: null, toolName: 'weather', toolOutput: { town: 'Bonn' } },
      ])
      await done()
      expect(embedder.embedded.find((text) => text.includes('in a part'))).toBeDefined()
      expect(embedder.embedded.find((text) => text.includes('Bonn'))).toMatch(/weather.*town.*Bonn/)
    })

    test('of an import, and of a council, too', async () => {
      const calls = [{ threadId: thread, messages: many(12, 'imported') }]
      await opened.tb.messages.appendMany(scope, calls)
      const { id } = await opened.tb.conversations.createConversation(scope)
      await opened.tb.conversations.turns.begin(scope, id, {
        content: 'why?',
        holder: randomUUID(),
        leaseS: 5,
      })
      expect(await done()).toHaveLength(13)
    })

    test('the result of a session has one, and a new one when it says something else', async () => {
      const { db } = opened.database
      const key = { user_id: scope.userId, session_id: thread }
      const lists = { vulnerabilities: '[]', chain_links: '[]', solutions: '[]' }
      await db
        .insertInto('chain_analysis_results')
        .values({ ...key, ...lists, text: 'first' })
        .execute()
      const embedding = async () => {
        const { rows: found } = await sql<{ embedding: string; model: string | null }>`
          select embedding::text, embedding_model as model from ${t.chainAnalysisResults}
           where user_id = ${scope.userId}`.execute(db)
        return found[0]?.model === 'test-words' && rounded(JSON.parse(found[0].embedding) as number[])
      }
      expect(await until(embedding, 'the result is done')).toEqual(rounded(embedWords('first')))
      await db
        .updateTable('chain_analysis_results')
        .set({ text: 'second', version: 2 })
        .where('user_id', '=', scope.userId)
        .execute()
      expect(await until(embedding, 'the result is done again')).toEqual(rounded(embedWords('second')))
    })

    test('texts without a word are done without asking', async () => {
      await append([user(''), user(' \n\t'), user('words')])
      const found = await done()
      expect(found.map(({ embedding }) => embedding === null)).toEqual([true, true, false])
      expect(embedder.embedded).toEqual(['words'])
    })

    test('a text that is refused holds up no other, and the log does not say it', async () => {
      embedder.faults = { refuses: (text) => text.includes('secret') }
      const messages = many(17)
      messages[5] = user('a secret 5')
      messages[11] = user('a secret 11')
      await append(messages)
      const found = await done()
      expect(found.flatMap(({ embedding }, i) => (embedding === null ? [i] : []))).toEqual([5, 11])
      const warnings = opened.logged.filter(({ message }) => message.includes('refuses a text'))
      expect(warnings.map(({ facts }) => facts.id).toSorted()).toEqual(
        [found[5]?.id, found[11]?.id].toSorted(),
      )
      expect(JSON.stringify(opened.logged)).not.toContain('secret')
      expect((await opened.tb.embeddings.status()).refused).toBe(2)
    })

    for (const [what, faults] of [
      ['down', { down: true }],
      ['down and says when it will be back', { down: 0.2 }],
      ['of another length', { length: 300 }],
      ['without numbers', { length: 0 }],
    ] as const) {
      test(`a model that is ${what} holds up no append, and the backlog goes when it works`, async () => {
        embedder.faults = { ...faults }
        const started = performance.now()
        for (let i = 0; i < 5; i++) await append(many(10, `append ${i}`))
        expect(performance.now() - started).toBeLessThan(5_000)
        await until(async () => (await opened.tb.embeddings.status()).state === 'failing', 'it is noticed')
        expect((await rows()).every(({ model }) => model === null)).toBe(true)
        expect((await opened.tb.embeddings.status()).waiting).toBe(50)
        embedder.faults = {}
        expect(await done()).toHaveLength(50)
      })
    }

    test('a model that gives arrays, and one that takes few texts at a time, are good enough', async () => {
      embedder.faults = { arrays: true, most: 3 }
      const texts = many(30)
      await append(texts)
      const found = await done()
      expect(found.map(({ embedding }) => rounded(embedding))).toEqual(
        texts.map(({ content }) => rounded(embedWords(String(content)))),
      )
    })

    test('a vector without a direction is none', async () => {
      await append([user('!?'), user('words')])
      expect((await done()).map(({ embedding }) => embedding === null)).toEqual([true, false])
    })

    test('rows of an erasure that was interrupted are not waited for', async () => {
      const { database, tb } = opened
      embedder.faults = { down: true }
      await append(many(3))
      await sql`insert into ${sql.id(database.schema, 'erased_users')} (user_id) values (${scope.userId})`.execute(
        database.db,
      )
      embedder.faults = {}
      // it ends
      await tb.embeddings.backfill({ giveUpAfterS: 5 })
      expect((await rows()).map(({ model }) => model)).toEqual([null, null, null])
      await tb.gdpr.erase(scope, { userId: 'root', via: 'library' })
    })

    test('a slow model holds up no append', async () => {
      embedder.faults = { delayMs: 300 }
      await append(many(8))
      await until(async () => (await countClaims(opened.database)) > 0, 'it is at work')
      const started = performance.now()
      for (let i = 0; i < 10; i++) await append([user(`quick ${i}`)])
      expect(performance.now() - started).toBeLessThan(2_000)
      expect(await done()).toHaveLength(18)
    })

    test('it asks less often the longer a model is down', async () => {
      embedder.faults = { down: true }
      const before = embedder.calls()
      await append(many(3))
      await new Promise((wait) => setTimeout(wait, 500))
      // 20, 40, 80, 100, 100 … ms, each less up to a half
      expect(embedder.calls() - before).toBeLessThan(14)
      embedder.faults = {}
      await done()
    })

    test('what is gone before it is stored does not come back', async () => {
      embedder.faults = { delayMs: 200 }
      const [gone] = await append(many(4))
      await until(async () => (await countClaims(opened.database)) > 0, 'it is at work')
      await opened.tb.messages.delete(scope, thread, String(gone?.id))
      expect(await done()).toHaveLength(3)
      await until(async () => (await countClaims(opened.database)) === 0, 'no claim is left')
    })

    test('nothing comes back of a user whose data was erased meanwhile, nor does that hold up others', async () => {
      embedder.faults = { delayMs: 200 }
      await append(many(4))
      await until(async () => (await countClaims(opened.database)) > 0, 'it is at work')
      const { db } = opened.database
      await db.insertInto('erased_users').values({ user_id: scope.userId }).execute()
      await sql`delete from ${t.embeddingClaims} where user_id = ${scope.userId}`.execute(db)
      const other = { userId: `${scope.userId}-other` }
      const { id } = await opened.tb.threads.create(other)
      await opened.tb.messages.append(other, id, many(3))
      await untilEmbedded(opened.database, other.userId)
      // the newest of the erased one wait still, and are not come to
      await sql`update ${t.messages} set embedding_model = null where user_id = ${scope.userId}`.execute(db)
      await opened.tb.messages.append(other, id, many(3))
      await untilEmbedded(opened.database, other.userId)
      await until(async () => (await countClaims(opened.database)) === 0, 'no claim is left')
      expect((await rows()).every(({ model }) => model === null)).toBe(true)
      await opened.tb.threads.delete(scope, thread)
    })

    test('a fork has what its origin has, without asking the model', async () => {
      await append([...many(30), user('')])
      await done()
      embedder.embedded.length = 0
      await opened.tb.threads.fork(scope, thread)
      const found = await done()
      expect(found).toHaveLength(62)
      expect(found.filter(({ embedding }) => embedding === null)).toHaveLength(2)
      expect(embedder.embedded).toEqual([])
      await opened.tb.threads.delete(scope, thread)
    })

    describe('who waits', () => {
      const wait = (ids: string[], timeoutS = 30) => opened.tb.embeddings.wait(scope, ids, { timeoutS })
      const idsOf = (messages: { id: string }[]) => messages.map(({ id }) => id)

      test('is told when the messages are embedded', async () => {
        const appended = await append(many(20))
        expect(await wait(idsOf(appended))).toBe('embedded')
        expect((await rows()).every(({ model }) => model !== null)).toBe(true)
        expect(await wait(idsOf(appended))).toBe('embedded')
        // another user's are not there
        expect(await opened.tb.embeddings.wait({ userId: 'stranger' }, idsOf(appended))).toBe('embedded')
      })

      test('is told soon that it takes longer', async () => {
        embedder.faults = { delayMs: 1_500 }
        const slow = await append(many(2))
        const started = performance.now()
        expect(await wait(idsOf(slow), 0.3)).toBe('pending')
        expect(performance.now() - started).toBeLessThan(1_400)
        embedder.faults = { down: true }
        const later = await append(many(2))
        await until(async () => (await opened.tb.embeddings.status()).state === 'failing', 'it is noticed')
        expect(await wait(idsOf(later))).toBe('pending')
        expect(performance.now() - started).toBeLessThan(10_000)
      })

      test('hears of no error: the messages are stored', async () => {
        const [message] = await append(many(1))
        const forUser = () => {
          throw new ThreadbaseError('unavailable', 'the database is away')
        }
        const { log, logged } = recordingLog()
        const away = createEmbeddingService({
          ...{ database: { ...opened.database, forUser }, embedder, log },
          vectors: createVectors(opened.database, { probes: undefined }),
        })
        expect(await away.wait(scope, idsOf([message as never]))).toBe('pending')
        expect(logged).toMatchObject([{ level: 'warn', facts: { reason: 'the database is away' } }])
      })

      test('is told that there are none', async () => {
        const tb = await openServices(opened.database)
        const [message] = await tb.messages.append(scope, thread, many(1))
        expect(await tb.embeddings.wait(scope, [String(message?.id)])).toBe('off')
        expect(tb.embeddings.model).toBeUndefined()
        await expect(tb.embeddings.backfill()).rejects.toMatchObject({ code: 'unsupported' })
        expect(await tb.embeddings.backlog()).toBe(0)
        await expect(tb.embeddings.wait(scope, ['x'])).rejects.toMatchObject({ code: 'invalid_input' })
      })
    })

    test('it can be closed at any moment', async () => {
      embedder.faults = { down: true }
      await append(many(40))
      const other = newTestEmbedder()
      other.faults = { delayMs: 5 }
      for (let i = 0; i < 30; i++) {
        const vectors = createVectors(opened.database, { probes: undefined })
        const parts = { database: opened.database, vectors, embedder: other, log: silentLog }
        const embeddings = createEmbeddingService(parts, { settleS: 0 })
        embeddings.start()
        await new Promise((wait) => setTimeout(wait, i / 2))
        const started = performance.now()
        await embeddings.close()
        expect(performance.now() - started).toBeLessThan(2_000)
        await sql`update ${t.messages} set embedding_model = null where user_id = ${scope.userId}`.execute(
          opened.database.db,
        )
      }
      embedder.faults = {}
      await done()
    })

    test.runIf(engine.name === 'pglite')('the embedded store has no index to make', async () => {
      const building = opened.tb.embeddings.buildIndex({ type: 'hnsw' })
      await expect(building).rejects.toMatchObject({ code: 'unsupported' })
    })

    test('with another model all is done again, and nothing twice while both are in use', async () => {
      const texts = many(20)
      await append(texts)
      await done()
      const newer = newTestEmbedder('test-newer')
      const tb = await openServices(opened.database, { embedder: newer, background: false })
      const { done: count } = await tb.embeddings.backfill()
      expect(count).toBeGreaterThanOrEqual(20)
      const found = await untilEmbedded(opened.database, scope.userId, 'test-newer')
      expect(found).toHaveLength(20)
      // the older one goes on with what is new, and leaves what the newer one has done
      embedder.embedded.length = 0
      await append([user('later')])
      const models = async () => new Set((await rows()).map(({ model }) => model))
      await until(async () => !(await models()).has(null), 'the new one is done')
      expect(embedder.embedded).toEqual(['later'])
      expect(await tb.embeddings.status()).toMatchObject({
        model: 'test-newer',
        waiting: 0,
        ofOtherModels: 1,
      })
      await tb.embeddings.backfill()
      expect(await models()).toEqual(new Set(['test-newer']))
      // back again
      await opened.tb.embeddings.backfill()
      expect(await models()).toEqual(new Set(['test-words']))
    })
  })
}
