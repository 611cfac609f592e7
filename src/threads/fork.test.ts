import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { engines, type TestDatabase } from '../../test/harness.ts'
import type { Message } from '../messages/schema.ts'

for (const engine of engines) {
  describe.skipIf(!engine.available)(`fork on ${engine.name}`, () => {
    let opened: TestDatabase
    beforeAll(async () => {
      opened = await engine.open()
    })
    afterAll(() => opened?.close())
    const scope = { userId: 'forker' }
    const all = async (id: string): Promise<Message[]> =>
      (await opened.tb.messages.list(scope, id, { limit: 200 })).items
    /** Messages as they must be equal in a fork: parents by their place. */
    const shape = (messages: Message[]) =>
      messages.map(({ id, threadId, parentId, ...rest }) => ({
        ...rest,
        parentSeq: messages.find((other) => other.id === parentId)?.seq ?? null,
      }))

    /** A tree: m1 ← m2 ← m3, m2b beside m2, m4 under m2b, and a second root. */
    async function makeTree(): Promise<string> {
      const { id } = await opened.tb.threads.create(scope, { title: 'tree', kind: 'council', meta: { a: 1 } })
      await opened.tb.messages.append(scope, id, [
        { messageId: 'm1', role: 'user', content: 'one' },
        {
          messageId: 'm2',
          role: 'assistant',
          content: [{ type: 'text', text: 'two \0' }],
          meta: { cost: 0.5 },
        },
        { messageId: 'm3', role: 'user', content: 'three' },
        { messageId: 'm2b', parentId: 'm1', role: 'assistant', content: 'two again' },
        {
          messageId: 'm4',
          role: 'tool',
          content: null,
          toolName: 't',
          toolInput: { b: 1, a: 2 },
          toolOutput: 12,
        },
        { parentId: null, role: 'system', content: 'root' },
      ])
      await opened.tb.configs.put(scope, id, { model: 'gpt', temperature: 0.5, settings: { top_p: 1 } })
      return id
    }

    test('copies the tree, message ids, times and configuration under ids of its own', async () => {
      const id = await makeTree()
      const fork = await opened.tb.threads.fork(scope, id)
      expect(fork).toMatchObject({
        forkedFrom: id,
        title: 'tree',
        kind: 'council',
        meta: { a: 1 },
        lastSeq: 6,
      })
      expect(fork.id).not.toBe(id)
      const [from, to] = [await all(id), await all(fork.id)]
      expect(shape(to)).toEqual(shape(from))
      expect(new Set([...from, ...to].map((message) => message.id)).size).toBe(12)
      expect(await opened.tb.configs.get(scope, fork.id)).toEqual(await opened.tb.configs.get(scope, id))
    })

    test('stops at a seq, and goes on from there', async () => {
      const id = await makeTree()
      const fork = await opened.tb.threads.fork(scope, id, { at: 4 })
      expect(shape(await all(fork.id))).toEqual(shape((await all(id)).slice(0, 4)))
      const [next] = await opened.tb.messages.append(scope, fork.id, [{ role: 'user', content: 'new' }])
      expect(next).toMatchObject({ seq: 5, parentId: (await all(fork.id))[3]?.id })
      const empty = await opened.tb.threads.fork(scope, id, { at: 0 })
      expect(await all(empty.id)).toEqual([])
      expect(empty.lastSeq).toBe(0)
    })

    test('is a thread apart: what happens in one does not show in the other', async () => {
      const id = await makeTree()
      const fork = await opened.tb.threads.fork(scope, id)
      const before = await all(id)
      const [first] = await all(fork.id)
      // its message ids are known in the fork, too
      const again = await opened.tb.messages.appendOrFind(scope, fork.id, [
        { messageId: 'm1', role: 'user', content: 'one' },
      ])
      expect(again).toMatchObject([{ created: false, message: { id: first?.id, seq: 1 } }])
      await opened.tb.messages.append(scope, fork.id, [
        { messageId: 'm7', role: 'user', content: 'in the fork' },
      ])
      await opened.tb.messages.update(scope, fork.id, first?.id as string, { meta: { changed: true } })
      await opened.tb.messages.delete(scope, fork.id, first?.id as string)
      await opened.tb.configs.patch(scope, fork.id, { model: 'other' })
      await opened.tb.threads.update(scope, fork.id, { meta: { b: 2 } })
      expect(await all(id)).toEqual(before)
      expect((await opened.tb.configs.get(scope, id)).model).toBe('gpt')
      expect((await opened.tb.threads.getThread(scope, id)).meta).toEqual({ a: 1 })
    })

    test('of a thread with deleted messages keeps the gaps', async () => {
      const id = await makeTree()
      const messages = await all(id)
      await opened.tb.messages.delete(scope, id, messages[1]?.id as string)
      await opened.tb.messages.delete(scope, id, messages[5]?.id as string)
      const fork = await opened.tb.threads.fork(scope, id)
      expect((await all(fork.id)).map(({ seq }) => seq)).toEqual([1, 3, 4, 5])
      expect(shape(await all(fork.id))).toEqual(shape(await all(id)))
      const [next] = await opened.tb.messages.append(scope, fork.id, [{ role: 'user', content: 'x' }])
      expect(next?.seq).toBe(7)
    })

    test('beyond the end says where the end is; of nothing is not found', async () => {
      const id = await makeTree()
      await expect(opened.tb.threads.fork(scope, id, { at: 7 })).rejects.toMatchObject({
        code: 'invalid_input',
        details: { at: 7, lastSeq: 6 },
      })
      await expect(opened.tb.threads.fork(scope, id, { at: -1 })).rejects.toMatchObject({
        code: 'invalid_input',
      })
      await expect(opened.tb.threads.fork(scope, randomUUID())).rejects.toMatchObject({ code: 'not_found' })
    })

    test('and delete at the same moment: a whole fork or not found', async () => {
      for (let i = 0; i < 8; i++) {
        const id = await makeTree()
        const [fork] = await Promise.allSettled([
          opened.tb.threads.fork(scope, id),
          opened.tb.threads.delete(scope, id),
        ])
        if (fork.status === 'rejected') expect(fork.reason).toMatchObject({ code: 'not_found' })
        else expect(await all(fork.value.id)).toHaveLength(6)
      }
    })

    test('a thread is deleted while its forks are appended to: nobody waits for the other for ever', async () => {
      const { threads, messages } = opened.tb
      for (let round = 0; round < 10; round++) {
        // an id of the client's that sorts behind those of the forks
        const { id } = await threads.create(scope, { id: `f${randomUUID().slice(1)}` })
        const forks = await Promise.all(Array.from({ length: 6 }, () => threads.fork(scope, id)))
        const append = (threadId: string) =>
          messages.append(scope, threadId, [{ role: 'user', content: 'x' }])
        const appends = [...forks, ...forks].map((fork) => append(fork.id))
        expect(await threads.delete(scope, id)).toBe(true)
        for (const appended of await Promise.all(appends)) expect(appended).toHaveLength(1)
        expect((await threads.getThread(scope, forks[0]?.id ?? '')).forkedFrom).toBeNull()
      }
    })
  })
}
