import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { engines, type TestDatabase } from '../../test/harness.ts'
import { newId } from '../core/ids.ts'
import type { NewMessage } from '../messages/schema.ts'
import { digestMessage } from '../messages/service.ts'

const user = (
  messageId: string,
  content: unknown = messageId,
  meta?: Record<string, unknown>,
): NewMessage => ({
  messageId,
  role: 'user',
  content,
  meta,
})

for (const engine of engines) {
  describe.skipIf(!engine.available)(`the services' bulk functions on ${engine.name}`, () => {
    let store: TestDatabase
    beforeAll(async () => {
      store = await engine.open()
    })
    afterAll(() => store?.close())

    test('threads are made together, with times of their own; one that cannot be stored is alone in that', async () => {
      const { threads } = store.tb
      const scope = { userId: 'bulk threads' }
      const old = await threads.create(scope, { id: newId(), title: 'kept' })
      const [a, b] = [newId(), newId()]
      const createdAt = new Date('2020-01-02T03:04:05.678Z')
      const outcomes = await threads.createMany(scope, [
        { id: a, title: 'a', meta: { nul: '\0' }, createdAt },
        { id: old.id, title: 'other', meta: {} },
        {
          id: newId(),
          title: 'x',
          meta: {
            n: JSON.parse('[1]'),
            huge: (JSON as never as { rawJSON(t: string): object }).rawJSON('9'.repeat(140_000)),
          },
        },
        { id: b, title: null, meta: {} },
      ])
      expect(outcomes).toEqual([
        'created',
        'exists',
        expect.objectContaining({ code: 'invalid_input' }),
        'created',
      ])
      const found = await threads.findMany(scope, [a, b, old.id, newId()])
      expect([...found.keys()].sort()).toEqual([a, b, old.id].sort())
      expect(found.get(a)).toMatchObject({
        meta: { nul: '\0' },
        createdAt,
        updatedAt: createdAt,
        kind: 'chat',
      })
      expect(found.get(old.id)?.title).toBe('kept')
      expect(await threads.findMany({ userId: 'somebody else' }, [a])).toEqual(new Map())
      expect(await threads.createMany(scope, [])).toEqual([])
    })

    test('messages are appended to many threads; each call has its own outcome', async () => {
      const { threads, messages } = store.tb
      const scope = { userId: 'bulk messages' }
      const [a, b, c] = await Promise.all([1, 2, 3].map(async () => (await threads.create(scope)).id))
      const [x, y, z] = [String(a), String(b), String(c)]
      await messages.append(scope, z, [user('known')])
      const results = await messages.appendMany(scope, [
        { threadId: x, messages: Array.from({ length: 2_300 }, (_, i) => user(`m${i}`)) },
        { threadId: newId(), messages: [user('m')] },
        { threadId: y, messages: [] },
        { threadId: y.toUpperCase(), messages: [{ ...user('m'), role: 'bot' as never }] },
        { threadId: z, messages: [user('known'), user('next')] },
      ])
      expect(results).toEqual([
        { added: 2_300 },
        { added: 0, error: expect.objectContaining({ code: 'not_found' }) },
        { added: 0 },
        { added: 0, error: expect.objectContaining({ code: 'invalid_input' }) },
        { added: 1 },
      ])
      const last = await messages.list(scope, x, { limit: 2, order: 'desc' })
      expect(last.items.map(({ seq, messageId }) => [seq, messageId])).toEqual([
        [2_300, 'm2299'],
        [2_299, 'm2298'],
      ])
      expect(last.items[0]?.parentId).toBe(last.items[1]?.id)
      const [conflict] = await messages.appendMany(scope, [
        { threadId: z, messages: [user('known', 'other')] },
      ])
      expect(conflict).toEqual({ added: 0, error: expect.objectContaining({ code: 'conflict' }) })
    })

    test('digests tell the stored messages of some threads, by seq', async () => {
      const { threads, messages } = store.tb
      const scope = { userId: 'bulk digests' }
      const { id } = await threads.create(scope)
      const sent = [user('one', { a: [1, null] }), user('two', 'x', { k: 1 })]
      await messages.append(scope, id, [...sent, { role: 'user', content: 'no id' }])
      expect(await messages.listDigests(scope, [id, newId()])).toEqual(
        sent.map((message) => ({
          threadId: id,
          messageId: message.messageId,
          digest: digestMessage(message),
          meta: message.meta ?? {},
        })),
      )
      expect(await messages.listDigests({ userId: 'somebody else' }, [id])).toEqual([])
      expect(await messages.listDigests(scope, [])).toEqual([])
    })

    test('a message that is imported does not make its thread newer than it is, one that is appended does', async () => {
      const { threads, messages } = store.tb
      const scope = { userId: 'bulk times' }
      const id = newId()
      await threads.createMany(scope, [
        { id, title: null, meta: {}, createdAt: new Date('2020-01-01T00:00:00Z') },
      ])
      const updatedAt = async () => (await threads.getThread(scope, id)).updatedAt
      const imported = (createdAt: string) =>
        messages.appendMany(scope, [{ threadId: id, messages: [{ ...user('x'), createdAt }] }])
      await imported('2020-02-01T00:00:00Z')
      expect((await updatedAt()).toISOString()).toBe('2020-02-01T00:00:00.000Z')
      const before = Date.now() - 60_000
      await messages.append(scope, id, [{ ...user('old'), createdAt: '2020-03-01T00:00:00Z' }])
      expect((await updatedAt()).getTime()).toBeGreaterThan(before)
      await imported('2999-01-01T00:00:00Z')
      expect((await updatedAt()).getTime()).toBeLessThan(before + 3_600_000)
    })
  })
}
