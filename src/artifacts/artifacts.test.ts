import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import {
  countRows,
  failingAfter,
  ODD_NAMES,
  readAll,
  storedHashes,
  sweepStaged,
  unread,
} from '../../test/bytes.ts'
import { engines, type TestDatabase } from '../../test/harness.ts'
import { MISSING_ID } from '../../test/http.ts'
import { announce, sha256Of } from '../../test/uploads.ts'
import type { Threadbase } from '../threadbase.ts'
import type { Artifact } from './schema.ts'

const LIMIT = 100_000

for (const engine of engines) {
  describe.skipIf(!engine.available)(`artifacts on ${engine.name}`, () => {
    let opened: TestDatabase
    let tb: Threadbase
    beforeAll(async () => {
      opened = await engine.open({ uploadLimitBytes: LIMIT })
      tb = opened.tb
    })
    afterAll(() => opened?.close())

    /** A user with a thread of their own: what one test stores, no other one sees. */
    async function newThread() {
      const scope = { userId: `u-${randomUUID()}` }
      const { id } = await tb.threads.create(scope)
      return { scope, thread: id }
    }
    const unique = (text = 'bytes') => `${text} ${randomUUID()}`
    /** What is in the storage and in the tables; taking a look removes what was left behind, and counts it. */
    const snapshot = async () => ({
      hashes: await storedHashes(opened),
      staged: await sweepStaged(opened),
      artifacts: await countRows(opened, 'artifacts'),
    })

    test('one that is stored is read back with everything that was said of it', async () => {
      const { scope, thread } = await newThread()
      const bytes = unique('a,b\n')
      const input = {
        filename: 't.csv',
        sessionId: 's',
        runId: 'r',
        toolCallId: 'c',
        meta: { a: { b: [1] } },
      }
      const made = await tb.artifacts.create(scope, thread, bytes, input)
      expect(made).toEqual({
        ...input,
        ...announce(bytes),
        id: made.id,
        userId: scope.userId,
        threadId: thread,
        mime: 'text/csv',
        createdAt: expect.any(Date),
      } satisfies Artifact)
      expect(await tb.artifacts.getArtifact(scope, made.id)).toEqual(made)
      expect(String(await readAll(await tb.artifacts.read(scope, made.id, { verify: true })))).toBe(bytes)
      expect(String(await readAll(await tb.artifacts.read(scope, made.id, { start: 2, end: 4 })))).toBe(
        bytes.slice(2, 5),
      )
      expect(await tb.artifacts.head(scope, made.id)).toEqual({
        ...{ id: made.id, mime: 'text/csv', exists: true, storedAt: expect.any(Date) },
        ...announce(bytes),
      })
    })

    test('without a word of it, it has a name by its type and no more', async () => {
      const { scope, thread } = await newThread()
      expect(await tb.artifacts.create(scope, thread, '')).toMatchObject({
        ...{ filename: 'file.txt', mime: 'text/plain', size: 0, meta: {} },
        ...{ sessionId: null, runId: null, toolCallId: null },
        sha256: sha256Of(''),
      })
    })

    test('the same bytes are two artifacts, of two users too, and are stored once', async () => {
      const [one, two] = [await newThread(), await newThread()]
      const bytes = unique()
      const made = await Promise.all(
        [one, one, two].map(({ scope, thread }) => tb.artifacts.create(scope, thread, bytes)),
      )
      expect(new Set(made.map(({ id }) => id)).size).toBe(3)
      expect((await storedHashes(opened)).filter((hash) => hash === sha256Of(bytes))).toHaveLength(1)
      await tb.artifacts.delete(one.scope, String(made[0]?.id))
      expect(String(await readAll(await tb.artifacts.read(two.scope, String(made[2]?.id))))).toBe(bytes)
    })

    test('lists are newest first, in pages that no new one disturbs', async () => {
      const { scope, thread } = await newThread()
      const ids: string[] = []
      for (let n = 0; n < 7; n++) {
        const input = { runId: n % 2 === 0 ? 'even' : 'odd', toolCallId: `call ${n}` }
        ids.unshift((await tb.artifacts.create(scope, thread, `${n}`, input)).id)
      }
      const found: string[] = []
      let cursor: string | undefined
      do {
        const page = await tb.artifacts.list(scope, thread, { limit: 3, ...(cursor ? { cursor } : {}) })
        found.push(...page.items.map(({ id }) => id))
        cursor = page.nextCursor
        await tb.artifacts.create(scope, thread, 'while somebody pages')
      } while (cursor !== undefined)
      expect(found).toEqual(ids)
      const list = async (query: object) =>
        (await tb.artifacts.list(scope, thread, query)).items.map(({ id }) => id)
      expect(await list({ runId: 'odd' })).toEqual([ids[1], ids[3], ids[5]])
      expect(await list({ toolCallId: 'call 0' })).toEqual([ids[6]])
      expect(await list({ runId: 'odd', toolCallId: 'call 0' })).toEqual([])
      for (const query of [{ limit: 0 }, { limit: 201 }, { cursor: 'x' }, { other: 1 }] as object[])
        await expect(list(query)).rejects.toMatchObject({ code: 'invalid_input' })
      await expect(tb.artifacts.list(scope, MISSING_ID)).rejects.toMatchObject({ code: 'not_found' })
    })

    test('a deleted one is gone, and deleting again is no error', async () => {
      const { scope, thread } = await newThread()
      const { id } = await tb.artifacts.create(scope, thread, 'x')
      expect(await tb.artifacts.delete(scope, id)).toBe(true)
      expect(await tb.artifacts.delete(scope, id)).toBe(false)
      expect(await tb.artifacts.findArtifact(scope, id)).toBeUndefined()
      for (const call of [
        tb.artifacts.getArtifact,
        tb.artifacts.head,
        tb.artifacts.read,
        tb.artifacts.presign,
      ])
        await expect(call(scope, id)).rejects.toMatchObject({ code: 'not_found' })
      expect(await tb.artifacts.list(scope, thread)).toEqual({ items: [] })
    })

    test('names are data: whatever they are, they come back as they were', async () => {
      const { scope, thread } = await newThread()
      for (const filename of ODD_NAMES) {
        const { id } = await tb.artifacts.create(scope, thread, unique(), { filename, meta: { filename } })
        const found = await tb.artifacts.getArtifact(scope, id)
        expect(found.filename).toBe(filename)
        expect(found.meta.filename).toBe(filename)
        const url = await tb.artifacts.presign(scope, id)
        expect(url).toMatch(/^\/api\/blobs\/[0-9a-f]{64}\?[\x21-\x7e]+$/)
      }
      for (const hash of await storedHashes(opened)) expect(hash).toMatch(/^[0-9a-f]{64}$/)
    })

    describe('what is refused leaves no row and no bytes', () => {
      test('a thread that is not there, before anything is read', async () => {
        const { scope } = await newThread()
        const { thread: ofAnother } = await newThread()
        const before = await snapshot()
        for (const thread of [MISSING_ID, ofAnother])
          await expect(tb.artifacts.create(scope, thread, unread())).rejects.toMatchObject({
            code: 'not_found',
          })
        await expect(tb.artifacts.create(scope, 'x', unread())).rejects.toMatchObject({
          code: 'invalid_input',
        })
        expect(await snapshot()).toEqual({ ...before, staged: 0 })
      })

      test.each<[what: string, input: object, code: string]>([
        ['another hash', { sha256: 'a'.repeat(64) }, 'invalid_input'],
        ['a hash in capitals', { sha256: 'A'.repeat(64) }, 'invalid_input'],
        ['fewer bytes than announced', { size: 100 }, 'invalid_input'],
        ['more bytes than announced', { size: 2 }, 'invalid_input'],
        ['an empty name', { filename: '' }, 'invalid_input'],
        ['a name that is too long', { filename: 'x'.repeat(1_001) }, 'invalid_input'],
        ['meta that is no object', { meta: [] }, 'invalid_input'],
        ['a field that is not known', { id: MISSING_ID }, 'invalid_input'],
      ])('%s', async (_, input, code) => {
        const { scope, thread } = await newThread()
        const before = await snapshot()
        // said before the bytes, or with them
        for (const given of [input, () => input])
          await expect(tb.artifacts.create(scope, thread, unique(), given as never)).rejects.toMatchObject({
            code,
          })
        expect(await snapshot()).toEqual({ ...before, staged: 0 })
      })

      test('too many bytes, as soon as they are', async () => {
        const { scope, thread } = await newThread()
        const before = await snapshot()
        let sent = 0
        const endless = async function* () {
          for (; ; sent += 10_000) yield Buffer.alloc(10_000)
        }
        await expect(tb.artifacts.create(scope, thread, endless())).rejects.toMatchObject({
          code: 'too_large',
        })
        expect(sent).toBeLessThan(4_000_000)
        const exact = await tb.artifacts.create(scope, thread, Buffer.alloc(LIMIT, randomUUID()))
        expect(exact.size).toBe(LIMIT)
        expect((await snapshot()).staged).toBe(0)
        expect((await snapshot()).artifacts).toBe(before.artifacts + 1)
      })

      test('a source that fails, at its beginning or later', async () => {
        const { scope, thread } = await newThread()
        const before = await snapshot()
        for (const source of [failingAfter(), failingAfter('some', 'bytes')])
          await expect(tb.artifacts.create(scope, thread, source)).rejects.toThrow('the source is gone')
        for (const source of [5, null, {}, [1]] as never[])
          await expect(tb.artifacts.create(scope, thread, source)).rejects.toMatchObject({
            code: 'invalid_input',
          })
        expect(await snapshot()).toEqual({ ...before, staged: 0 })
      })

      test('a thread that is deleted while the bytes come', async () => {
        const { scope, thread } = await newThread()
        const before = await snapshot()
        const slow = async function* () {
          yield Buffer.from(unique())
          await tb.threads.delete(scope, thread)
          yield Buffer.from('and more')
        }
        await expect(tb.artifacts.create(scope, thread, slow())).rejects.toMatchObject({ code: 'not_found' })
        expect(await countRows(opened, 'artifacts')).toBe(before.artifacts)
        // the bytes were there before the row was refused: the collector finds them
        await tb.upkeep.collect({ graceS: 0 })
        expect((await storedHashes(opened)).filter((hash) => !before.hashes.includes(hash))).toEqual([])
      })
    })

    test('ids of other users are not found, whichever way they are written', async () => {
      const [a, b] = [await newThread(), await newThread()]
      const { id } = await tb.artifacts.create(a.scope, a.thread, 'x')
      expect((await tb.artifacts.getArtifact(a.scope, id.toUpperCase())).id).toBe(id)
      expect(await tb.artifacts.findArtifact(b.scope, id)).toBeUndefined()
      expect(await tb.artifacts.delete(b.scope, id)).toBe(false)
      await expect(tb.artifacts.getArtifact(b.scope, 'nothing')).rejects.toMatchObject({
        code: 'invalid_input',
      })
      expect((await tb.artifacts.getArtifact(a.scope, id)).id).toBe(id)
    })

    test('a URL is good for 24 hours unless another time is asked for, and for 7 days at most', async () => {
      const { scope, thread } = await newThread()
      const { id } = await tb.artifacts.create(scope, thread, 'x')
      const lifeOf = async (options?: { expiresInS: number }) => {
        const url = new URL(await tb.artifacts.presign(scope, id, options), 'http://localhost')
        return Number(url.searchParams.get('expires')) - Date.now() / 1_000
      }
      expect(Math.abs((await lifeOf()) - 86_400)).toBeLessThan(10)
      expect(Math.abs((await lifeOf({ expiresInS: 604_800 })) - 604_800)).toBeLessThan(10)
      for (const expiresInS of [0, -1, 1.5, 604_801, Number.NaN])
        await expect(lifeOf({ expiresInS })).rejects.toMatchObject({ code: 'invalid_input' })
    })
  })
}
