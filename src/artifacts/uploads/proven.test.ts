import { createHash, randomBytes } from 'node:crypto'
import { Readable } from 'node:stream'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { engines, type TestDatabase } from '../../../test/harness.ts'
import { ThreadbaseError } from '../../core/errors.ts'
import { createArtifactService, createKeeper } from '../service.ts'

const A = { userId: 'alice' }

for (const engine of engines) {
  describe.skipIf(!engine.available)(`completing uploads on ${engine.name}`, () => {
    let opened: TestDatabase
    beforeAll(async () => {
      opened = await engine.open()
    })
    afterAll(() => opened?.close())

    const startUpload = async (bytes: Buffer, threadId: string) => {
      const { artifacts, blobs } = opened.tb
      const sha256 = createHash('sha256').update(bytes).digest('hex')
      const upload = await artifacts.startUpload(A, threadId, { sha256, size: bytes.length })
      const { pathname, searchParams } = new URL(upload.url, 'http://localhost')
      const name = pathname.split('/').at(-1) ?? ''
      await blobs.local?.put(name, Object.fromEntries(searchParams), Readable.from([bytes]))
      return { ...upload, sha256 }
    }

    test('one whose row could not be made after the bytes were in their place can be completed later', async () => {
      const { artifacts, blobs, threads, database } = opened.tb
      const thread = await threads.create(A)
      const bytes = randomBytes(5_000)
      const { token, sha256 } = await startUpload(bytes, thread.id)
      let failing = true
      // the database goes away just when the bytes are in their place
      const keeper = createKeeper(database.db, blobs)
      const fragile = createArtifactService(
        database,
        threads,
        {
          ...keeper,
          keep: (staged, claims, insert) =>
            keeper.keep(staged, claims, (named) => {
              if (failing) throw new ThreadbaseError('unavailable', 'the database is away')
              return insert(named)
            }),
        },
        { maxBytes: 1_000_000 },
      )
      await expect(fragile.completeUpload(A, thread.id, token)).rejects.toMatchObject({ code: 'unavailable' })
      expect(await blobs.find(sha256)).toMatchObject({ size: 5_000 })
      failing = false
      const { artifact, created } = await artifacts.completeUpload(A, thread.id, token)
      expect([artifact.id, artifact.sha256, artifact.size, created]).toEqual([token, sha256, 5_000, true])
    })

    test('who never uploaded the bytes gets none, though somebody else has stored them', async () => {
      const { artifacts, threads } = opened.tb
      const thread = await threads.create(A)
      const bytes = randomBytes(100)
      const sha256 = createHash('sha256').update(bytes).digest('hex')
      const other = { userId: 'bob' }
      await artifacts.create(other, (await threads.create(other)).id, bytes)
      const { token } = await artifacts.startUpload(A, thread.id, { sha256, size: 100 })
      await expect(artifacts.completeUpload(A, thread.id, token)).rejects.toMatchObject({ code: 'conflict' })
      expect((await artifacts.list(A, thread.id)).items).toEqual([])
    })
  })
}
