import { sql } from 'kysely'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { newTestEmbedder, type TestEmbedder } from '../../../test/embedders.ts'
import { embeddingsOf, until, untilEmbedded } from '../../../test/embeddings.ts'
import { engines, recordingLog, type TestDatabase } from '../../../test/harness.ts'
import { createOwnDatabase, type OwnDatabase } from '../../../test/postgres-databases.ts'
import { prepareVectors } from '../vectors/service.ts'

for (const engine of engines) {
  describe.skipIf(!engine.available)(`the extension is removed from under a server on ${engine.name}`, () => {
    let own: OwnDatabase | undefined
    let opened: TestDatabase
    let embedder: TestEmbedder
    const scope = { userId: 'anna' }
    let thread: string
    beforeAll(async () => {
      embedder = newTestEmbedder()
      // others use the extension of the run's own database
      own = engine.name === 'postgres' ? await createOwnDatabase() : undefined
      const backoff = { firstMs: 20, maxMs: 100, missingMs: 50 }
      opened = await engine.open({ ...(own && { url: own.url }), embedder, embedding: { backoff } })
      thread = (await opened.tb.threads.create(scope)).id
    })
    afterAll(async () => {
      await opened?.close()
      await own?.drop()
    })
    const append = (...texts: string[]) =>
      opened.tb.messages.append(
        scope,
        thread,
        texts.map((content) => ({ role: 'user' as const, content })),
      )

    test('appends go on, it is said, and when it is back all is embedded again', async () => {
      await append('one', 'two', '')
      await untilEmbedded(opened.database, scope.userId)
      const { db } = opened.database
      await sql`drop extension vector cascade`.execute(db)
      const [message] = await append('three')
      await append('four')
      expect((await opened.tb.messages.list(scope, thread)).items).toHaveLength(5)
      await until(async () => (await opened.tb.embeddings.status()).state === 'unavailable', 'it is noticed')
      expect(await opened.tb.embeddings.status()).toMatchObject({
        ...{ space: { available: false }, waiting: 5, done: 0, empty: 0 },
      })
      expect(
        opened.logged.filter(({ message: text }) => text.includes('nothing (more) to keep')),
      ).toHaveLength(1)
      expect(await opened.tb.embeddings.wait(scope, [String(message?.id)])).toBe('off')
      await expect(opened.tb.embeddings.backfill()).rejects.toMatchObject({ code: 'unavailable' })
      const asked = embedder.calls()
      await append('five')
      await new Promise((wait) => setTimeout(wait, 200))
      expect(embedder.calls()).toBe(asked)

      // as a start, or `threadbase db upgrade`, does
      await prepareVectors(opened.database, { index: 'hnsw', change: true }, recordingLog().log)
      await until(
        async () => {
          const rows = await embeddingsOf(opened.database, scope.userId)
          return rows.filter(({ embedding }) => embedding !== null).length === 5
        },
        'all are embedded again',
        30_000,
      )
      expect(await opened.tb.embeddings.status()).toMatchObject({ waiting: 0, done: 5, empty: 1, refused: 0 })
      expect(opened.logged.some(({ message: text }) => text.includes('embeddings again'))).toBe(true)
    })
  })
}
