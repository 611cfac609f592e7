import { randomUUID } from 'node:crypto'
import { readdir, rm, utimes, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { sql } from 'kysely'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { countRows, expire, readAll, storedHashes } from '../../../test/bytes.ts'
import { engines, makeTempDir, type TestDatabase } from '../../../test/harness.ts'
import { announce, putUpload, sha256Of } from '../../../test/uploads.ts'
import { openFiles } from '../../blobs/files.ts'
import { createUrlSigner } from '../../blobs/signed-urls.ts'
import { t } from '../../db/schema.ts'
import type { Threadbase } from '../../threadbase.ts'
import type { BlobProblem, CollectOptions } from './service.ts'

const NOTHING = {
  ...{ removed: 0, removedBytes: 0, strays: 0, straysLeft: 0, expiredFiles: 0 },
  ...{ expiredUploads: 0, abandonedUploads: 0, young: 0 },
}

for (const engine of engines) {
  describe.skipIf(!engine.available)(`upkeep of bytes on ${engine.name}`, () => {
    const scope = { userId: 'anna' }
    let opened: TestDatabase
    let tb: Threadbase
    let dir: string
    let thread: string
    beforeAll(async () => {
      dir = await makeTempDir()
      const signer = createUrlSigner(Buffer.alloc(32, 1))
      opened = await engine.open({ ports: { blobs: openFiles({ dir, signer: async () => signer }) } })
      tb = opened.tb
    })
    // as new: another store would take seconds
    beforeEach(async () => {
      const tables = [t.artifacts, t.files, t.uploads, t.blobs, t.blobRemovals]
      await sql`truncate ${sql.join(tables)}`.execute(opened.database.db)
      for (const name of await readdir(dir)) await rm(join(dir, name), { recursive: true })
      thread = (await tb.threads.create(scope)).id
    })
    afterAll(() => opened?.close())

    const collect = (options: CollectOptions = {}) => tb.upkeep.collect({ strays: true, ...options })
    const pathOf = (bytes: string) => join(dir, tb.blobs.locate(sha256Of(bytes)).key)
    const store = (bytes: string) => tb.artifacts.create(scope, thread, bytes)
    /** Bytes in the storage that the database knows nothing of. */
    const addStray = async (bytes: string, ageMs = 0) => {
      await using staged = await tb.blobs.stage(
        (async function* () {
          yield Buffer.from(bytes)
        })(),
      )
      await staged.commit()
      const at = new Date(Date.now() - ageMs)
      await utimes(pathOf(bytes), at, at)
    }

    test('a deleted thread leaves no bytes; what anything else names stays', async () => {
      for (const bytes of ['one', 'two', 'shared', 'shared with a file']) await store(bytes)
      const kept = await tb.files.create({ userId: 'ben' }, 'shared with a file')
      const other = (await tb.threads.create(scope)).id
      await tb.artifacts.create(scope, other, 'shared')
      await tb.threads.delete(scope, thread)
      expect(await countRows(opened, 'artifacts')).toBe(1)
      expect(await storedHashes(opened)).toHaveLength(4)
      expect(await collect({ graceS: 0 })).toEqual({ ...NOTHING, removed: 2, removedBytes: 6 })
      const left = ['shared', 'shared with a file'].map(sha256Of).sort()
      expect(await storedHashes(opened)).toEqual(left)
      expect(await countRows(opened, 'blobs')).toBe(2)
      expect(String(await readAll(await tb.files.read({ userId: 'ben' }, kept.id)))).toBe(
        'shared with a file',
      )
      expect(await collect({ graceS: 0 })).toEqual(NOTHING)
    })

    test('within the grace period nothing is removed, and touching begins it anew', async () => {
      const { id } = await store('young')
      await tb.artifacts.delete(scope, id)
      expect(await collect()).toEqual({ ...NOTHING, young: 1 })
      expect(await storedHashes(opened)).toHaveLength(1)
      expect((await collect({ graceS: 0 })).removed).toBe(1)
      // the bytes can come again
      const again = await store('young')
      expect(String(await readAll(await tb.artifacts.read(scope, again.id)))).toBe('young')
    })

    test('files that have expired go, and their bytes in the same run', async () => {
      const gone = await tb.files.create(scope, 'temporary', { temporary: true })
      await tb.files.create(scope, 'not yet', { temporary: true })
      await tb.files.create(scope, 'stays')
      await expire(opened, 'files', gone.id)
      expect(await collect({ graceS: 0 })).toEqual({
        ...{ ...NOTHING, expiredFiles: 1, removed: 1, removedBytes: 9 },
      })
      expect(await storedHashes(opened)).toEqual(['not yet', 'stays'].map(sha256Of).sort())
    })

    test('bytes that the database knows nothing of are found, once they are old enough', async () => {
      await addStray('old stray', 7_200_000)
      await addStray('new stray')
      await store('named')
      expect(await collect()).toMatchObject({ strays: 1, removed: 1, removedBytes: 9 })
      expect(await storedHashes(opened)).toEqual(['named', 'new stray'].map(sha256Of).sort())
      expect(await collect({ graceS: 0 })).toMatchObject({ strays: 1, removed: 1 })
      expect(await storedHashes(opened)).toEqual([sha256Of('named')])
    })

    test('many of them may be another installation’s: they stay unless somebody says otherwise', async () => {
      for (let i = 0; i < 20; i++) await store(`named ${i}`)
      for (const bytes of ['a', 'b']) await addStray(bytes, 7_200_000)
      await tb.artifacts.delete(scope, (await store('deleted')).id)
      for (const dryRun of [true, false])
        expect(await collect({ graceS: 3_600, strays: false, dryRun })).toMatchObject({
          strays: 0,
          straysLeft: 2,
        })
      expect(await collect({ graceS: 0, strays: false })).toMatchObject({
        strays: 2,
        straysLeft: 0,
        removed: 3,
      })
      for (const bytes of ['a', 'b', 'c', 'd', 'e']) await addStray(bytes, 7_200_000)
      await tb.artifacts.delete(scope, (await store('deleted')).id)
      expect(await collect({ graceS: 0, strays: false })).toMatchObject({ straysLeft: 5, removed: 1 })
      expect(await storedHashes(opened)).toHaveLength(25)
      expect(await collect({ graceS: 0 })).toMatchObject({ strays: 5, straysLeft: 0, removed: 5 })
    })

    test('bytes of a row that was lost, and that somebody stores again, are kept', async () => {
      await addStray('found again', 7_200_000)
      const { id } = await store('found again')
      expect(await collect({ graceS: 0 })).toEqual(NOTHING)
      expect(String(await readAll(await tb.artifacts.read(scope, id)))).toBe('found again')
    })

    test('uploads that nobody completed go, with what they left', async () => {
      const late = await tb.artifacts.startUpload(scope, thread, announce('late'))
      const open = await tb.files.startUpload(scope, announce('open'))
      for (const [upload, bytes] of [
        [late, 'late'],
        [open, 'open'],
      ] as const)
        await putUpload(tb.blobs, upload, bytes)
      await expire(opened, 'uploads', late.token)
      expect(await collect({ graceS: 0 })).toEqual(NOTHING)
      expect((await collect({ graceS: 0, uploadGraceS: 0 })).expiredUploads).toBe(1)
      expect(await countRows(opened, 'uploads')).toBe(1)
      await expect(tb.artifacts.completeUpload(scope, thread, late.token)).rejects.toMatchObject({
        code: 'not_found',
      })
    })

    test('a dry run changes nothing and says what a run would do', async () => {
      for (const bytes of ['a', 'bb', 'ccc']) await store(bytes)
      await tb.threads.delete(scope, thread)
      await addStray('dddd', 7_200_000)
      const file = await tb.files.create(scope, 'stays', { temporary: true })
      const expired = await tb.files.create(scope, 'stays', { temporary: true })
      await expire(opened, 'files', expired.id)
      const before = [
        await storedHashes(opened),
        await countRows(opened, 'blobs'),
        await countRows(opened, 'files'),
      ]
      const said = await collect({ graceS: 0, dryRun: true })
      expect([
        await storedHashes(opened),
        await countRows(opened, 'blobs'),
        await countRows(opened, 'files'),
      ]).toEqual(before)
      expect(said).toEqual({ ...NOTHING, removed: 4, removedBytes: 10, strays: 1, expiredFiles: 1 })
      expect(await collect({ graceS: 0 })).toEqual(said)
      expect((await tb.files.getFile(scope, file.id)).id).toBe(file.id)
      // an hour is the default, and they are young
      const { id } = await tb.files.create(scope, 'young')
      await tb.files.delete(scope, id)
      expect(await collect({ dryRun: true })).toEqual({ ...NOTHING, young: 1 })
    })

    test('a dry run counts the bytes of files that have expired', async () => {
      const { id } = await tb.files.create(scope, 'temporary', { temporary: true })
      await expire(opened, 'files', id)
      const said = await collect({ graceS: 0, dryRun: true })
      expect(said).toEqual({ ...NOTHING, removed: 1, removedBytes: 9, expiredFiles: 1 })
      expect(await collect({ graceS: 0 })).toEqual(said)
    })

    test('several at the same time remove everything once', async () => {
      for (let n = 0; n < 450; n++) await store(`orphan ${n}`)
      await tb.threads.delete(scope, thread)
      const all = await Promise.all(Array.from({ length: 4 }, () => collect({ graceS: 0 })))
      expect(all.reduce((sum, { removed }) => sum + removed, 0)).toBe(450)
      expect(await storedHashes(opened)).toEqual([])
      expect(await countRows(opened, 'blobs')).toBe(0)
    })

    test('it tells how far it is, and ends when it is told to', async () => {
      for (let n = 0; n < 250; n++) await store(`orphan ${n}`)
      await tb.threads.delete(scope, thread)
      const shares: number[] = []
      const stop = new AbortController()
      const report = await collect({
        graceS: 0,
        signal: stop.signal,
        onProgress: (share, { removed }) => {
          shares.push(share)
          if (removed > 0) stop.abort()
        },
      })
      expect(report.removed).toBe(200)
      expect(shares).toEqual(shares.toSorted((a, b) => a - b))
      for (const share of shares) expect(share >= 0 && share <= 1).toBe(true)
      expect((await collect({ graceS: 0 })).removed).toBe(50)
      expect(await collect({ signal: AbortSignal.abort() })).toMatchObject({ removed: 0 })
    })

    test('verify finds what is missing, truncated or changed, and who has it', async () => {
      const verify = async (quick = false) => {
        const problems: BlobProblem[] = []
        const report = await tb.upkeep.verify({ quick, onProblem: (problem) => void problems.push(problem) })
        return { report, problems: problems.toSorted((a, b) => a.size - b.size) }
      }
      const [missing, truncated, changed] = ['missing', 'truncated', 'is changed'] as const
      const ids: string[] = []
      for (const bytes of [missing, truncated, changed, 'is whole and stays so'])
        ids.push((await store(bytes)).id)
      const file = await tb.files.create({ userId: 'ben' }, missing)
      const { id: deleted } = await store('nobody names it')
      await tb.artifacts.delete(scope, deleted)
      expect(await verify()).toEqual({
        report: { checked: 4, checkedBytes: 47, missing: 0, corrupt: 0, unreadable: 0 },
        problems: [],
      })
      await tb.blobs.remove(sha256Of(missing))
      await tb.blobs.remove(sha256Of('nobody names it'))
      await writeFile(pathOf(truncated), 'trunc')
      await writeFile(pathOf(changed), 'was change')
      const found = await verify()
      expect(found.report).toEqual({ checked: 4, checkedBytes: 47, missing: 1, corrupt: 2, unreadable: 0 })
      const ofAnna = (id = '') => ({ userId: 'anna', table: 'artifacts', id })
      expect(found.problems).toEqual([
        {
          ...{ sha256: sha256Of(missing), problem: 'missing', size: 7, found: null },
          namedBy: [ofAnna(ids[0]), { userId: 'ben', table: 'files', id: file.id }],
        },
        { sha256: sha256Of(truncated), problem: 'corrupt', size: 9, found: 5, namedBy: [ofAnna(ids[1])] },
        { sha256: sha256Of(changed), problem: 'corrupt', size: 10, found: 10, namedBy: [ofAnna(ids[2])] },
      ])
      // who only looks at sizes does not see the changed one
      expect((await verify(true)).report).toEqual({
        checked: 4,
        checkedBytes: 47,
        missing: 1,
        corrupt: 1,
        unreadable: 0,
      })
      expect(await tb.artifacts.head(scope, String(ids[0]))).toMatchObject({ exists: false, storedAt: null })
      expect(await tb.artifacts.head(scope, String(ids[1]))).toMatchObject({ exists: false })
      // who stores the same bytes again mends it
      for (const bytes of [missing, truncated]) await store(bytes)
      expect((await verify()).report).toMatchObject({ missing: 0, corrupt: 1 })
    })

    test('it verifies more than a batch, in order', async () => {
      for (let n = 0; n < 230; n++) await store(`${n} ${randomUUID()}`)
      const shares: number[] = []
      const report = await tb.upkeep.verify({ onProgress: (share) => void shares.push(share) })
      expect(report).toMatchObject({ checked: 230, missing: 0, corrupt: 0, unreadable: 0 })
      expect(shares).toHaveLength(230)
    })
  })
}
