import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import {
  countRows,
  expire,
  failingAfter,
  ODD_NAMES,
  readAll,
  storedHashes,
  sweepStaged,
} from '../../../test/bytes.ts'
import { engines, type TestDatabase } from '../../../test/harness.ts'
import { MISSING_ID } from '../../../test/http.ts'
import { announce, putUpload, sha256Of } from '../../../test/uploads.ts'
import type { Scope } from '../../core/scope.ts'
import type { Threadbase } from '../../threadbase.ts'
import type { UserFile } from '../schema.ts'

const DAY_MS = 86_400_000

for (const engine of engines) {
  describe.skipIf(!engine.available)(`files on ${engine.name}`, () => {
    let opened: TestDatabase
    let tb: Threadbase
    beforeAll(async () => {
      opened = await engine.open()
      tb = opened.tb
    })
    afterAll(() => opened?.close())

    const newUser = () => ({ userId: `u-${randomUUID()}` })
    const namesOf = async (scope: Scope, query = {}) =>
      (await tb.files.list(scope, query)).items.map(({ name }) => name).sort()
    const add = async (scope: Scope, filename: string) =>
      (await tb.files.create(scope, 'x', { filename })).name

    test('one that is stored is read back with everything that was said of it', async () => {
      const scope = newUser()
      const bytes = `a,b ${randomUUID()}`
      const flowId = randomUUID()
      const made = await tb.files.create(scope, bytes, { filename: 't.csv', flowId, meta: { a: [1] } })
      expect(made).toEqual({
        ...{ id: made.id, userId: scope.userId, name: 't.csv', mime: 'text/csv', flowId },
        ...announce(bytes),
        ...{ expiresAt: null, meta: { a: [1] }, createdAt: expect.any(Date) },
      } satisfies UserFile)
      expect(await tb.files.getFile(scope, made.id)).toEqual(made)
      expect(String(await readAll(await tb.files.read(scope, made.id)))).toBe(bytes)
      expect(await tb.files.head(scope, made.id)).toMatchObject({ exists: true, ...announce(bytes) })
      expect(await tb.files.presign(scope, made.id)).toContain(made.sha256)
      expect((await tb.files.create(scope, 'x')).name).toBe('file.txt')
    })

    test('the bytes of an artifact and of a file are the same bytes', async () => {
      const scope = newUser()
      const { id: thread } = await tb.threads.create(scope)
      const bytes = `both ${randomUUID()}`
      await tb.artifacts.create(scope, thread, bytes)
      await tb.files.create(scope, bytes)
      expect((await storedHashes(opened)).filter((hash) => hash === sha256Of(bytes))).toHaveLength(1)
    })

    test('a second one of a name gets a number, of another user it does not', async () => {
      const scope = newUser()
      const names = ['a.pdf', 'a.pdf', 'a.pdf', 'b', 'b', '.env', '.env']
      const got = ['a.pdf', 'a (1).pdf', 'a (2).pdf', 'b', 'b (1)', '.env', '.env (1)']
      for (const [i, name] of names.entries()) expect(await add(scope, name)).toBe(got[i])
      expect(await add(newUser(), 'a.pdf')).toBe('a.pdf')
    })

    test('a file that is itself called by a number is passed over', async () => {
      const scope = newUser()
      expect(await add(scope, 'a (1).pdf')).toBe('a (1).pdf')
      expect(await add(scope, 'a.pdf')).toBe('a.pdf')
      expect(await add(scope, 'a.pdf')).toBe('a (2).pdf')
      expect(await add(scope, 'a (1).pdf')).toBe('a (1) (1).pdf')
      expect(await add(scope, 'a.pdf')).toBe('a (3).pdf')
    })

    test('past many files that are called by numbers, too', async () => {
      const scope = newUser()
      const numbers = Array.from({ length: 120 }, (_, i) => i + 1)
      for (const n of numbers) await add(scope, `rep (${n}).pdf`)
      expect(await add(scope, 'rep.pdf')).toBe('rep.pdf')
      const second = await add(scope, 'rep.pdf')
      expect(Number(/^rep \((\d+)\)\.pdf$/.exec(second)?.[1])).toBeGreaterThan(120)
    })

    test('a name that is too long is refused before the bytes are read; the longest has a place', async () => {
      const scope = newUser()
      let read = false
      const source = async function* () {
        read = true
        yield Buffer.from('x')
      }
      for (const filename of ['用'.repeat(600), '\0'.repeat(400)]) {
        const refused = { code: 'invalid_input', message: expect.stringContaining('1500 bytes') }
        await expect(tb.files.create(scope, source(), { filename })).rejects.toMatchObject(refused)
        await expect(tb.files.startUpload(scope, { filename, ...announce('x') })).rejects.toMatchObject(
          refused,
        )
      }
      expect(read).toBe(false)
      // each of its characters takes as much as one can, and so does its user's id
      const longest = { userId: '用'.repeat(255) }
      const name = Array.from({ length: 500 }, (_, i) => String.fromCodePoint(0x4e00 + i * 7)).join('')
      expect([await add(longest, name), await add(longest, name)]).toEqual([name, `${name} (1)`])
    })

    test('a name that is free is given as it is asked for', async () => {
      const scope = newUser()
      const first = await tb.files.create(scope, 'x', { filename: 'a.pdf' })
      expect(await add(scope, 'a.pdf')).toBe('a (1).pdf')
      await tb.files.delete(scope, first.id)
      expect(await add(scope, 'a.pdf')).toBe('a.pdf')
      expect(await add(scope, 'a.pdf')).toBe('a (2).pdf')
    })

    test('uploads of one name at the same time all get names of their own', async () => {
      const scope = newUser()
      const names = await Promise.all(Array.from({ length: 20 }, () => add(scope, 'same.txt')))
      expect(new Set(names).size).toBe(20)
      expect(names).toContain('same.txt')
      for (const name of names) expect(name).toMatch(/^same( \(\d+\))?\.txt$/)
      expect(await namesOf(scope)).toEqual(names.sort())
    })

    test('names are data: whatever they are, they come back as they were', async () => {
      const scope = newUser()
      for (const filename of ODD_NAMES) {
        const { id } = await tb.files.create(scope, 'x', { filename })
        expect((await tb.files.getFile(scope, id)).name).toBe(filename)
        expect((await tb.files.list(scope, { name: filename })).items.map((file) => file.id)).toEqual([id])
        expect((await tb.files.update(scope, id, { name: `${filename} again` })).name).toBe(
          `${filename} again`,
        )
      }
      expect(await add(scope, 'x'.repeat(1_000))).toHaveLength(1_000)
      expect(await add(scope, 'x'.repeat(1_000))).toHaveLength(1_004)
    })

    test('lists are newest first, in pages, of a flow or of a name', async () => {
      const scope = newUser()
      const flowId = randomUUID()
      const ids: string[] = []
      for (let n = 0; n < 5; n++)
        ids.unshift(
          (await tb.files.create(scope, `${n}`, { filename: `${n}`, ...(n > 2 ? { flowId } : {}) })).id,
        )
      const first = await tb.files.list(scope, { limit: 3 })
      const rest = await tb.files.list(scope, { limit: 3, cursor: String(first.nextCursor) })
      expect([...first.items, ...rest.items].map(({ id }) => id)).toEqual(ids)
      expect(rest.nextCursor).toBeUndefined()
      expect(await namesOf(scope, { flowId })).toEqual(['3', '4'])
      expect(await namesOf(scope, { flowId: MISSING_ID })).toEqual([])
      expect(await namesOf(scope, { name: '2' })).toEqual(['2'])
      for (const query of [{ cursor: 'x' }, { limit: 201 }, { flowId: 'x' }] as object[])
        await expect(tb.files.list(scope, query)).rejects.toMatchObject({ code: 'invalid_input' })
    })

    test('changes: name, flow, meta, expiry; the bytes stay', async () => {
      const scope = newUser()
      const other = await tb.files.create(scope, 'x', { filename: 'taken' })
      const file = await tb.files.create(scope, 'bytes', { filename: 'a', meta: { a: 1, b: 2 } })
      const update = (patch: object) => tb.files.update(scope, file.id, patch)
      expect(await update({ name: 'b' })).toEqual({ ...file, name: 'b' })
      expect((await update({ name: 'b' })).name).toBe('b')
      expect((await update({ name: 'taken' })).name).toBe('taken (1)')
      expect((await tb.files.getFile(scope, other.id)).name).toBe('taken')
      expect((await update({ name: 'a', meta: { a: null, c: 3 } })).meta).toEqual({ b: 2, c: 3 })
      const flowId = randomUUID()
      expect((await update({ flowId })).flowId).toBe(flowId)
      expect((await update({ flowId: null })).flowId).toBeNull()
      expect((await update({ expiresAt: '2100-01-01T00:00:00Z' })).expiresAt).toEqual(new Date('2100-01-01'))
      expect((await update({ expiresAt: null })).expiresAt).toBeNull()
      for (const patch of [
        {},
        { name: '' },
        { sha256: 'a'.repeat(64) },
        { flowId: 'x' },
        { expiresAt: 'soon' },
      ])
        await expect(update(patch)).rejects.toMatchObject({ code: 'invalid_input' })
      await expect(tb.files.update(scope, MISSING_ID, { name: 'x' })).rejects.toMatchObject({
        code: 'not_found',
      })
      await expect(tb.files.update(newUser(), file.id, { name: 'x' })).rejects.toMatchObject({
        code: 'not_found',
      })
      expect(String(await readAll(await tb.files.read(scope, file.id)))).toBe('bytes')
    })

    test('a temporary one is gone after 24 hours, for every call; its name is free after the next collection', async () => {
      const scope = newUser()
      const file = await tb.files.create(scope, 'x', { filename: 'a', temporary: true })
      expect(Math.abs(Number(file.expiresAt) - Date.now() - DAY_MS)).toBeLessThan(60_000)
      expect(await namesOf(scope)).toEqual(['a'])
      await expire(opened, 'files', file.id)
      expect(await namesOf(scope)).toEqual([])
      expect(await tb.files.findFile(scope, file.id)).toBeUndefined()
      for (const call of [tb.files.getFile, tb.files.head, tb.files.read, tb.files.presign])
        await expect(call(scope, file.id)).rejects.toMatchObject({ code: 'not_found' })
      // it cannot be called back either
      await expect(tb.files.update(scope, file.id, { expiresAt: null })).rejects.toMatchObject({
        code: 'not_found',
      })
      expect(await add(scope, 'a')).toBe('a (1)')
      await tb.upkeep.collect()
      expect(await add(scope, 'a')).toBe('a')
    })

    test('what is refused leaves no row and no bytes', async () => {
      const scope = newUser()
      const before = [await storedHashes(opened), await countRows(opened, 'files')]
      await expect(tb.files.create(scope, failingAfter('some', 'bytes'))).rejects.toThrow(
        'the source is gone',
      )
      for (const input of [
        { sha256: 'a'.repeat(64) },
        { size: 1 },
        { filename: '' },
        { flowId: 'x' },
        { runId: 'x' },
      ])
        for (const given of [input, () => input])
          await expect(tb.files.create(scope, `bytes ${randomUUID()}`, given as never)).rejects.toMatchObject(
            { code: 'invalid_input' },
          )
      expect(await sweepStaged(opened)).toBe(0)
      expect([await storedHashes(opened), await countRows(opened, 'files')]).toEqual(before)
    })

    test('deleting is no error, whoever calls', async () => {
      const scope = newUser()
      const { id } = await tb.files.create(scope, 'x')
      expect(await tb.files.delete(newUser(), id)).toBe(false)
      expect(await tb.files.delete(scope, id)).toBe(true)
      expect(await tb.files.delete(scope, id)).toBe(false)
    })

    describe('uploads that a client makes by itself', () => {
      test('become a file of the same id once, with a name that is free by then', async () => {
        const scope = newUser()
        const bytes = `bytes ${randomUUID()}`
        const input = { ...announce(bytes), filename: 'a.txt', temporary: true, meta: { a: 1 } }
        const upload = await tb.files.startUpload(scope, input)
        const complete = () => tb.files.completeUpload(scope, upload.token)
        await expect(complete()).rejects.toMatchObject({ code: 'conflict' })
        await add(scope, 'a.txt')
        await putUpload(tb.blobs, upload, bytes)
        const all = await Promise.all(Array.from({ length: 5 }, complete))
        expect(all.every(({ file }) => file.id === upload.token && file.name === 'a (1).txt')).toBe(true)
        const [first] = all
        expect(first?.file).toMatchObject({ ...announce(bytes), meta: { a: 1 }, expiresAt: expect.any(Date) })
        expect(await complete()).toEqual({ file: first?.file, created: false })
        expect(await namesOf(scope)).toEqual(['a (1).txt', 'a.txt'])
        expect(await sweepStaged(opened)).toBe(0)
      })

      test('exactly one of many completions at the same time made it', async () => {
        const scope = newUser()
        const upload = await tb.files.startUpload(scope, announce('bytes'))
        await putUpload(tb.blobs, upload, 'bytes')
        const all = await Promise.all(
          Array.from({ length: 8 }, () => tb.files.completeUpload(scope, upload.token)),
        )
        expect(all.filter(({ created }) => created)).toHaveLength(1)
      })

      test('belong to their user', async () => {
        const scope = newUser()
        const upload = await tb.files.startUpload(scope, announce('bytes'))
        await putUpload(tb.blobs, upload, 'bytes')
        for (const [who, token] of [
          [newUser(), upload.token],
          [scope, MISSING_ID],
        ] as const)
          await expect(tb.files.completeUpload(who, token)).rejects.toMatchObject({ code: 'not_found' })
        expect((await tb.files.completeUpload(scope, upload.token)).created).toBe(true)
      })
    })
  })
}
