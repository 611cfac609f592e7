import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { readAll, sweepStaged } from '../../../test/bytes.ts'
import { engines, type TestDatabase } from '../../../test/harness.ts'
import { MISSING_ID } from '../../../test/http.ts'
import { announce, putUpload, sha256Of } from '../../../test/uploads.ts'
import type { Threadbase } from '../../threadbase.ts'

const LIMIT = 100_000

for (const engine of engines) {
  describe.skipIf(!engine.available)(`bytes that clients put themselves, on ${engine.name}`, () => {
    let opened: TestDatabase
    let tb: Threadbase
    beforeAll(async () => {
      opened = await engine.open({ uploadLimitBytes: LIMIT })
      tb = opened.tb
    })
    afterAll(() => opened?.close())

    async function newThread() {
      const scope = { userId: `u-${randomUUID()}` }
      const { id } = await tb.threads.create(scope)
      return { scope, thread: id }
    }
    const unique = (text = 'bytes') => `${text} ${randomUUID()}`

    describe('uploads that a client makes by itself', () => {
      async function startUpload(bytes = unique(), input: object = {}) {
        const { scope, thread } = await newThread()
        const upload = await tb.artifacts.startUpload(scope, thread, { ...announce(bytes), ...input })
        const complete = () => tb.artifacts.completeUpload(scope, thread, upload.token)
        return { scope, thread, bytes, upload, complete }
      }

      test('become an artifact of the same id, once', async () => {
        const input = { filename: 'a.csv', runId: 'r', meta: { a: 1 } }
        const { scope, bytes, upload, complete } = await startUpload(unique('a,b'), input)
        await expect(complete()).rejects.toMatchObject({ code: 'conflict', details: { token: upload.token } })
        await putUpload(tb.blobs, upload, bytes)
        const first = await complete()
        expect(first).toMatchObject({
          created: true,
          artifact: { id: upload.token, mime: 'text/csv', ...announce(bytes), ...input },
        })
        expect(await complete()).toEqual({ ...first, created: false })
        await putUpload(tb.blobs, upload, bytes)
        expect(await complete()).toEqual({ ...first, created: false })
        expect(String(await readAll(await tb.artifacts.read(scope, upload.token)))).toBe(bytes)
        await sweepStaged(opened)
      })

      test('are completed once by many at the same time', async () => {
        const { bytes, upload, complete } = await startUpload()
        await putUpload(tb.blobs, upload, bytes)
        const all = await Promise.all(Array.from({ length: 8 }, complete))
        expect(all.filter(({ created }) => created)).toHaveLength(1)
        expect(new Set(all.map(({ artifact }) => artifact.id))).toEqual(new Set([upload.token]))
        expect(await sweepStaged(opened)).toBe(0)
      })

      test('take the announced bytes and no others', async () => {
        const { bytes, upload, complete } = await startUpload()
        const other = bytes.replace('bytes', 'BYTES')
        for (const wrong of [other, `${bytes}!`, bytes.slice(1), ''])
          await expect(putUpload(tb.blobs, upload, wrong)).rejects.toMatchObject({ code: 'invalid_input' })
        await expect(complete()).rejects.toMatchObject({ code: 'conflict' })
        expect(await sweepStaged(opened)).toBe(0)
        await putUpload(tb.blobs, upload, bytes)
        expect((await complete()).created).toBe(true)
      })

      test('end with their time: the URL takes nothing more, what was put before can be completed', async () => {
        const { bytes, upload, complete } = await startUpload(unique(), { expiresInS: 1 })
        await putUpload(tb.blobs, upload, bytes)
        expect(upload.expiresAt.getTime()).toBeLessThan(Date.now() + 2_000)
        await new Promise((resolve) => setTimeout(resolve, upload.expiresAt.getTime() - Date.now() + 1_000))
        await expect(putUpload(tb.blobs, upload, bytes)).rejects.toMatchObject({ code: 'forbidden' })
        expect((await complete()).created).toBe(true)
      })

      test('are refused where they cannot be stored, and belong to their thread and user', async () => {
        const { scope, thread, bytes, upload } = await startUpload()
        await putUpload(tb.blobs, upload, bytes)
        const other = await newThread()
        const { id: second } = await tb.threads.create(scope)
        for (const [who, where] of [
          [other.scope, thread],
          [other.scope, other.thread],
          [scope, second],
          [scope, MISSING_ID],
        ] as const)
          await expect(tb.artifacts.completeUpload(who, where, upload.token)).rejects.toMatchObject({
            code: 'not_found',
          })
        await expect(tb.files.completeUpload(scope, upload.token)).rejects.toMatchObject({
          code: 'not_found',
        })
        const big = { sha256: 'a'.repeat(64), size: LIMIT + 1 }
        await expect(tb.artifacts.startUpload(scope, thread, big)).rejects.toMatchObject({
          code: 'too_large',
        })
        for (const wrong of [{ sha256: 'x' }, { size: -1 }, { size: 1.5 }, { expiresInS: 604_801 }])
          await expect(
            tb.artifacts.startUpload(scope, thread, { ...announce('x'), ...wrong }),
          ).rejects.toMatchObject({ code: 'invalid_input' })
        await expect(tb.artifacts.startUpload(scope, MISSING_ID, announce('x'))).rejects.toMatchObject({
          code: 'not_found',
        })
        await sweepStaged(opened)
      })

      test('of a thread that is deleted meanwhile are not found', async () => {
        const { scope, thread, bytes, upload, complete } = await startUpload()
        await putUpload(tb.blobs, upload, bytes)
        await tb.threads.delete(scope, thread)
        await expect(complete()).rejects.toMatchObject({ code: 'not_found' })
        expect(await sweepStaged(opened)).toBe(1)
      })
    })

    describe('ingesting what is in the storage already', () => {
      /** An object that a sandbox put below uploads/. */
      async function newObject(bytes: string): Promise<string> {
        const put = await tb.blobs.presignPut(announce(bytes), { expiresInS: 60 })
        await putUpload(tb.blobs, put, bytes)
        return put.key
      }

      test('its bytes are hashed, and it is moved to their place', async () => {
        const { scope, thread } = await newThread()
        const bytes = unique('{}')
        const key = await newObject(bytes)
        const input = { s3Key: key, filename: 'a.json', meta: { a: 1 } }
        const made = await tb.artifacts.ingest(scope, thread, input, { trusted: false })
        expect(made).toMatchObject({ filename: 'a.json', mime: 'application/json', ...announce(bytes) })
        await expect(tb.artifacts.ingest(scope, thread, input)).rejects.toMatchObject({ code: 'not_found' })
        expect(await sweepStaged(opened)).toBe(0)
      })

      test('what was announced is proven', async () => {
        const { scope, thread } = await newThread()
        const bytes = unique()
        const s3Key = await newObject(bytes)
        for (const wrong of [{ sha256: 'a'.repeat(64) }, { size: 1 }])
          await expect(tb.artifacts.ingest(scope, thread, { s3Key, ...wrong })).rejects.toMatchObject({
            code: 'invalid_input',
          })
        // it is still there for a right call
        expect((await tb.artifacts.ingest(scope, thread, { s3Key, ...announce(bytes) })).size).toBe(
          bytes.length,
        )
        const tooLarge = await newObject('x'.repeat(LIMIT + 1))
        await expect(tb.artifacts.ingest(scope, thread, { s3Key: tooLarge })).rejects.toMatchObject({
          code: 'too_large',
        })
        await sweepStaged(opened)
      })

      test.each([
        '/etc/passwd',
        '../outside',
        'uploads/../../outside',
        'uploads/./x',
        'uploads//x',
        'uploads/',
        'output',
        'uploads',
        'uploads/a\0b',
        'uploads/a\\..\\b',
        'other/place',
        'uploads/\ud800',
        'encryption.key',
      ])('a key out of the storage is refused: %j', async (s3Key) => {
        const { scope, thread } = await newThread()
        await expect(tb.artifacts.ingest(scope, thread, { s3Key })).rejects.toMatchObject({
          code: 'invalid_input',
        })
      })

      test('by their hash, only bytes that are named by the user already, or by nobody', async () => {
        const [a, b] = [await newThread(), await newThread()]
        const bytes = unique('secret')
        const { id } = await tb.artifacts.create(a.scope, a.thread, bytes)
        const s3Key = tb.blobs.locate(sha256Of(bytes)).key
        const untrusted = (who: typeof a) =>
          tb.artifacts.ingest(who.scope, who.thread, { s3Key }, { trusted: false })
        await expect(untrusted(b)).rejects.toMatchObject({ code: 'not_found' })
        // as of bytes that are nowhere
        const nowhere = tb.blobs.locate('a'.repeat(64)).key
        await expect(tb.artifacts.ingest(b.scope, b.thread, { s3Key: nowhere })).rejects.toMatchObject({
          code: 'not_found',
        })
        const own = await untrusted(a)
        expect(own).toMatchObject({ filename: sha256Of(bytes), ...announce(bytes) })
        // the bytes have not moved
        expect(String(await readAll(await tb.artifacts.read(a.scope, id)))).toBe(bytes)
        expect((await tb.artifacts.ingest(b.scope, b.thread, { s3Key })).size).toBe(bytes.length)
        // now both name them
        expect((await untrusted(b)).size).toBe(bytes.length)
      })

      test('a file of the user counts as a name, one of another user too', async () => {
        const [a, b] = [await newThread(), await newThread()]
        const bytes = unique('secret')
        await tb.files.create(a.scope, bytes)
        const s3Key = tb.blobs.locate(sha256Of(bytes)).key
        const untrusted = { trusted: false }
        await expect(tb.artifacts.ingest(b.scope, b.thread, { s3Key }, untrusted)).rejects.toMatchObject({
          code: 'not_found',
        })
        expect((await tb.artifacts.ingest(a.scope, a.thread, { s3Key }, untrusted)).size).toBe(bytes.length)
        const nobodys = unique()
        await using staged = await tb.blobs.stage(
          (async function* () {
            yield Buffer.from(nobodys)
          })(),
        )
        await staged.commit()
        const place = { s3Key: tb.blobs.locate(sha256Of(nobodys)).key }
        expect((await tb.artifacts.ingest(b.scope, b.thread, place, untrusted)).sha256).toBe(
          sha256Of(nobodys),
        )
      })
    })
  })
}
