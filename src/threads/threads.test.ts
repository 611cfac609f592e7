import { randomUUID } from 'node:crypto'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { anyJsonObject, comparable } from '../../test/arbitraries.ts'
import { engines, type TestDatabase } from '../../test/harness.ts'
import type { Thread } from './schema.ts'
import type { ThreadService } from './service.ts'

for (const engine of engines) {
  describe.skipIf(!engine.available)(`threads on ${engine.name}`, () => {
    let opened: TestDatabase
    let threads: ThreadService
    beforeAll(async () => {
      opened = await engine.open()
      threads = opened.tb.threads
    })
    afterAll(() => opened?.close())
    /** A user of the test's own: its lists are empty. */
    const newScope = () => ({ userId: `user-${randomUUID()}` })
    const scope = newScope()
    const ids = (list: Thread[]) => list.map(({ id }) => id)
    const append = (id: string, of = scope) =>
      opened.tb.messages.append(of, id, [{ role: 'user', content: 'x' }])

    test('a new thread has its fields and defaults', async () => {
      const thread = await threads.create(scope, { title: 'Trip ✈', kind: 'council', meta: { a: [1] } })
      expect(thread).toEqual({
        id: expect.stringMatching(/^[0-9a-f-]{36}$/),
        userId: scope.userId,
        title: 'Trip ✈',
        kind: 'council',
        meta: { a: [1] },
        lastSeq: 0,
        forkedFrom: null,
        createdAt: expect.any(Date),
        updatedAt: expect.any(Date),
        archivedAt: null,
        endedAt: null,
      })
      expect(await threads.getThread(scope, thread.id)).toEqual(thread)
      expect(await threads.create(scope)).toMatchObject({ title: null, kind: 'chat', meta: {} })
    })

    test('the same id with the same body is the same thread, also in capitals and also at once', async () => {
      const id = randomUUID()
      const body = { id, title: 'once', meta: { b: 1, a: 2 } }
      const first = await threads.createOrFind(scope, body)
      expect(first.created).toBe(true)
      await threads.update(scope, id, { title: 'renamed' })
      const again = await threads.createOrFind(scope, { ...body, id: id.toUpperCase(), meta: { a: 2, b: 1 } })
      expect(again).toMatchObject({ created: false, thread: { id, title: 'renamed' } })
      const twin = randomUUID()
      const made = await Promise.all(
        Array.from({ length: 8 }, () => threads.createOrFind(scope, { id: twin })),
      )
      expect(made.filter(({ created }) => created)).toHaveLength(1)
      expect(new Set(made.map(({ thread }) => thread.id))).toEqual(new Set([twin]))
    })

    test('the same id with another body is a conflict', async () => {
      const id = randomUUID()
      await threads.create(scope, { id, title: 'one' })
      await expect(threads.create(scope, { id, title: 'two' })).rejects.toMatchObject({ code: 'conflict' })
      const { id: ours } = await threads.create(scope, { title: 'made here' })
      await expect(threads.create(scope, { id: ours, title: 'made here' })).rejects.toMatchObject({
        code: 'conflict',
      })
      expect((await threads.getThread(scope, id)).title).toBe('one')
    })

    test('two users may use one id for threads of their own', async () => {
      const id = randomUUID()
      const [a, b] = [newScope(), newScope()]
      await threads.create(a, { id, title: 'of a' })
      await threads.create(b, { id, title: 'of b' })
      await threads.delete(a, id)
      expect(await threads.findThread(a, id)).toBeUndefined()
      expect((await threads.getThread(b, id)).title).toBe('of b')
    })

    test('absence: find is undefined, get is not_found, delete is false', async () => {
      const id = randomUUID()
      expect(await threads.findThread(scope, id)).toBeUndefined()
      await expect(threads.getThread(scope, id)).rejects.toMatchObject({
        code: 'not_found',
        details: { threadId: id },
      })
      expect(await threads.delete(scope, id)).toBe(false)
    })

    test('update sets the title and merges meta; null removes', async () => {
      const { id, updatedAt } = await threads.create(scope, {
        title: 'a',
        meta: { keep: 1, drop: 2, deep: { x: 1, y: 2 } },
      })
      const changed = await threads.update(scope, id, { meta: { drop: null, deep: { z: 3 }, added: 'ü\0' } })
      expect(changed).toMatchObject({ title: 'a', meta: { keep: 1, deep: { z: 3 }, added: 'ü\0' } })
      expect(changed.meta).not.toHaveProperty('drop')
      expect(changed.updatedAt.getTime()).toBeGreaterThanOrEqual(updatedAt.getTime())
      expect(await threads.update(scope, id, { title: null })).toMatchObject({
        title: null,
        meta: changed.meta,
      })
    })

    test('two writers of different fields of meta do not undo each other', async () => {
      const { id } = await threads.create(scope)
      const names = Array.from({ length: 20 }, (_, n) => `f${n}`)
      await Promise.all(names.map((name) => threads.update(scope, id, { meta: { [name]: name } })))
      expect((await threads.getThread(scope, id)).meta).toEqual(
        Object.fromEntries(names.map((name) => [name, name])),
      )
    })

    test('meta keeps any JSON, whatever is merged into it', async () => {
      const { id } = await threads.create(scope)
      let expected: Record<string, unknown> = {}
      await fc.assert(
        fc.asyncProperty(anyJsonObject, async (patch) => {
          expected = Object.fromEntries(
            Object.entries({ ...expected, ...patch }).filter(([, value]) => value !== null),
          )
          const { meta } = await threads.update(scope, id, { meta: patch })
          expect(comparable(meta)).toEqual(comparable(expected))
        }),
        { numRuns: 60 },
      )
    })

    test('archive hides from lists and can be taken back; doing it twice changes nothing', async () => {
      const of = newScope()
      const { id } = await threads.create(of)
      const first = await threads.archive(of, id)
      expect(first.archivedAt).toBeInstanceOf(Date)
      expect(await threads.archive(of, id)).toEqual(first)
      expect((await threads.list(of)).items).toEqual([])
      expect(ids((await threads.list(of, { includeArchived: true })).items)).toEqual([id])
      expect((await threads.unarchive(of, id)).archivedAt).toBeNull()
      expect(ids((await threads.list(of)).items)).toEqual([id])
    })

    test('end notes the first time, and a late answer still goes in', async () => {
      const { id } = await threads.create(scope)
      const { endedAt } = await threads.end(scope, id)
      expect((await threads.end(scope, id)).endedAt).toEqual(endedAt)
      await append(id)
      expect(await threads.getThread(scope, id)).toMatchObject({ endedAt, lastSeq: 1 })
    })

    test('delete takes messages and config along, and forks stay', async () => {
      const { id } = await threads.create(scope, { title: 'origin' })
      await append(id)
      await opened.tb.configs.put(scope, id, { model: 'm' })
      const fork = await threads.fork(scope, id)
      expect(await threads.delete(scope, id)).toBe(true)
      expect(await threads.delete(scope, id)).toBe(false)
      await expect(opened.tb.messages.list(scope, id)).rejects.toMatchObject({ code: 'not_found' })
      await expect(opened.tb.configs.get(scope, id)).rejects.toMatchObject({ code: 'not_found' })
      expect(await threads.getThread(scope, fork.id)).toMatchObject({ forkedFrom: null, lastSeq: 1 })
      expect((await threads.createOrFind(scope, { id, title: 'new' })).created).toBe(true)
      expect((await opened.tb.messages.list(scope, id)).items).toEqual([])
    })

    test('the list is by newest update, and an append is an update', async () => {
      const of = newScope()
      const made: string[] = []
      for (let n = 0; n < 3; n++) {
        made.push((await threads.create(of)).id)
        await new Promise((resolve) => setTimeout(resolve, 5))
      }
      expect(ids((await threads.list(of)).items)).toEqual(made.toReversed())
      await append(made[0] as string, of)
      expect(ids((await threads.list(of)).items)).toEqual([made[0], made[2], made[1]])
    })

    test('pages follow each other without a gap, also among equal times, and tell the last', async () => {
      const of = newScope()
      await Promise.all(Array.from({ length: 23 }, () => threads.create(of)))
      const all = ids((await threads.list(of, { limit: 100 })).items)
      expect(new Set(all).size).toBe(23)
      const paged: string[] = []
      let cursor: string | undefined
      do {
        const page = await threads.list(of, { limit: 5, cursor })
        expect(page.items.length).toBeGreaterThan(0)
        paged.push(...ids(page.items))
        cursor = page.nextCursor
      } while (cursor !== undefined)
      expect(paged).toEqual(all)
      expect((await threads.list(of, { limit: 23 })).nextCursor).toBeUndefined()
    })

    test('rows that change between pages: none that stays put is missed or comes twice', async () => {
      const of = newScope()
      for (let n = 0; n < 12; n++) await threads.create(of)
      const before = ids((await threads.list(of, { limit: 100 })).items)
      const first = await threads.list(of, { limit: 4 })
      // a read one is deleted, an unread one moves to the front, a new one comes
      await threads.delete(of, before[1] as string)
      await threads.update(of, before[8] as string, { title: 'moved' })
      await threads.create(of)
      const second = await threads.list(of, { limit: 100, cursor: first.nextCursor })
      expect(ids(second.items)).toEqual(before.slice(4).filter((id) => id !== before[8]))
    })

    test('filters: kind, and titles that contain a text as it is written, in any case', async () => {
      const of = newScope()
      const titles = ['100% sure', '100 percent', 'a_b', 'axb', 'Über uns', 'back\\slash', "o'clock", null]
      const made = new Map<string | null, string>()
      for (const title of titles) made.set(title, (await threads.create(of, { title })).id)
      const flow = await threads.create(of, { title: '100% flow', kind: 'flow' })
      const search = async (q: string) =>
        (await threads.list(of, { q, kind: 'chat' })).items.map(({ title }) => title)
      expect(await search('100%')).toEqual(['100% sure'])
      expect(await search('%')).toEqual(['100% sure'])
      expect(await search('_')).toEqual(['a_b'])
      expect(await search('A_B')).toEqual(['a_b'])
      expect(await search('über')).toEqual(['Über uns'])
      expect(await search('k\\s')).toEqual(['back\\slash'])
      expect(await search("o'c")).toEqual(["o'clock"])
      expect(await search('nothing')).toEqual([])
      expect((await search('')).length).toBe(titles.length)
      expect(ids((await threads.list(of, { kind: 'flow' })).items)).toEqual([flow.id])
    })

    test.each([
      ['a field that is not known', { titel: 'x' }],
      ['a bad id', { id: 'abc' }],
      ['a kind that is none', { kind: 'party' }],
      ['a title with NUL', { title: 'a\0b' }],
      ['a title with half a surrogate pair', { title: 'a\ud800' }],
      ['a title of 501 characters', { title: 'x'.repeat(501) }],
      ['a title of many marks on few letters', { title: `x${'\u0301'.repeat(2_000)}` }],
      ['meta that is a list', { meta: [] }],
      ['meta too deep', { meta: { a: JSON.parse('['.repeat(600) + ']'.repeat(600)) } }],
    ])('%s is invalid input', async (_, input) => {
      await expect(threads.create(scope, input as never)).rejects.toMatchObject({ code: 'invalid_input' })
    })

    test('500 characters are a title, whatever they take in bytes', async () => {
      expect((await threads.create(scope, { title: '😀'.repeat(500) })).title).toBe('😀'.repeat(500))
    })

    test.each([
      [{ limit: 0 }],
      [{ limit: 101 }],
      [{ limit: 1.5 }],
      [{ cursor: 'nonsense' }],
      [{ kind: 'x' }],
      [{ q: '\0' }],
      [{ page: 2 }],
      [{ cursor: Buffer.from(JSON.stringify(['threads', 1e300, randomUUID()])).toString('base64url') }],
      [{ cursor: Buffer.from(JSON.stringify(['threads', -8e15, randomUUID()])).toString('base64url') }],
      [{ cursor: Buffer.from(JSON.stringify(['threads', 1, 'no uuid'])).toString('base64url') }],
    ])('a list with %j is invalid input', async (query) => {
      await expect(threads.list(scope, query as never)).rejects.toMatchObject({ code: 'invalid_input' })
    })

    test('an empty patch and a bad id are invalid input', async () => {
      const { id } = await threads.create(scope)
      await expect(threads.update(scope, id, {})).rejects.toMatchObject({ code: 'invalid_input' })
      await expect(threads.update(scope, 'x', { title: 'a' })).rejects.toMatchObject({
        code: 'invalid_input',
      })
    })
  })
}
