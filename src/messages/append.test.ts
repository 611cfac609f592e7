import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { engines, type TestDatabase } from '../../test/harness.ts'
import type { Message, NewMessage } from './schema.ts'
import { createMessageService, type MessageService } from './service.ts'

const user = (content: unknown, more: Partial<NewMessage> = {}): NewMessage => ({
  role: 'user',
  content,
  ...more,
})
const range = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, n) => from + n)

// Exactly once, in order, whole or not at all: the promises of an append when many come at the same time.
for (const engine of engines) {
  describe.skipIf(!engine.available)(`append on ${engine.name}`, () => {
    let opened: TestDatabase
    let messages: MessageService
    beforeAll(async () => {
      opened = await engine.open()
      messages = opened.tb.messages
    })
    afterAll(() => opened?.close())
    const scope = { userId: 'writer' }
    const newThread = async () => (await opened.tb.threads.create(scope)).id
    async function all(thread: string): Promise<Message[]> {
      const found: Message[] = []
      let cursor: string | undefined
      do {
        const page: { items: Message[]; nextCursor?: string } = await messages.list(scope, thread, {
          limit: 200,
          cursor,
        })
        found.push(...page.items)
        cursor = page.nextCursor
      } while (cursor !== undefined)
      return found
    }
    const contents = async (thread: string) => (await all(thread)).map(({ content }) => content)

    test('a known message id is the stored message and changes nothing', async () => {
      const thread = await newThread()
      const [first] = await messages.append(scope, thread, [
        user({ a: 1, b: [2] }, { messageId: 'm', meta: { n: 1 } }),
      ])
      await messages.append(scope, thread, [user('between')])
      const before = await opened.tb.threads.getThread(scope, thread)
      const again = await messages.appendOrFind(scope, thread, [
        user({ b: [2], a: 1 }, { messageId: 'm', meta: { n: 2 }, createdAt: '2000-01-01T00:00:00Z' }),
      ])
      expect(again).toEqual([{ created: false, message: { ...first, content: { a: 1, b: [2] } } }])
      expect(await opened.tb.threads.getThread(scope, thread)).toEqual(before)
      expect(await all(thread)).toHaveLength(2)
    })

    test.each([
      ['content', { content: 'other' }],
      ['role', { role: 'assistant' as const }],
      ['tool name', { toolName: 't' }],
      ['tool input', { toolInput: {} }],
      ['tool output', { toolOutput: 0 }],
    ])('a known message id with another %s is a conflict', async (_, other) => {
      const thread = await newThread()
      await messages.append(scope, thread, [user('x', { messageId: 'm' })])
      const call = messages.append(scope, thread, [
        user('new'),
        { ...user('x', { messageId: 'm' }), ...other },
      ])
      await expect(call).rejects.toMatchObject({ code: 'conflict', details: { messageId: 'm' } })
      expect(await contents(thread)).toEqual(['x'])
    })

    test('one message id is one message a thread, and another in the next thread', async () => {
      const [one, two] = [await newThread(), await newThread()]
      await messages.append(scope, one, [user('x', { messageId: 'm' })])
      expect(await messages.appendOrFind(scope, two, [user('y', { messageId: 'm' })])).toMatchObject([
        { created: true },
      ])
    })

    test('a message id twice in one call is stored once, or a conflict', async () => {
      const thread = await newThread()
      const [a, b, c] = await messages.appendOrFind(scope, thread, [
        user('x', { messageId: 'm' }),
        user('y'),
        user('x', { messageId: 'm' }),
      ])
      expect([a?.created, b?.created, c?.created]).toEqual([true, true, false])
      expect(c?.message).toEqual(a?.message)
      const call = messages.append(scope, thread, [
        user('1', { messageId: 'n' }),
        user('2', { messageId: 'n' }),
      ])
      await expect(call).rejects.toMatchObject({ code: 'conflict' })
      expect(await contents(thread)).toEqual(['x', 'y'])
    })

    test('one message id many times at once, through two services: one row', async () => {
      const other = createMessageService(opened.database, { lanes: 2 })
      for (let round = 0; round < 5; round++) {
        const thread = await newThread()
        const calls = Array.from({ length: 16 }, (_, n) =>
          (n % 2 === 0 ? messages : other).appendOrFind(scope, thread, [user('x', { messageId: 'm' })]),
        )
        const results = (await Promise.all(calls)).flat()
        expect(results.filter(({ created }) => created)).toHaveLength(1)
        expect(new Set(results.map(({ message }) => message.id)).size).toBe(1)
        expect(await all(thread)).toHaveLength(1)
      }
    })

    test('one message id with two contents at once: one is stored, the other a conflict', async () => {
      const other = createMessageService(opened.database, { lanes: 2 })
      const thread = await newThread()
      const results = await Promise.allSettled([
        messages.append(scope, thread, [user('x', { messageId: 'm' })]),
        other.append(scope, thread, [user('y', { messageId: 'm' })]),
      ])
      expect(results.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected'])
      expect(results.find(({ status }) => status === 'rejected')).toMatchObject({
        reason: { code: 'conflict' },
      })
      expect(await all(thread)).toHaveLength(1)
    })

    test('64 writers on one thread: no gap, no duplicate, and a reader that polls misses nothing', async () => {
      const thread = await newThread()
      const [writers, each] = [64, 5]
      const services = [
        messages,
        createMessageService(opened.database, { lanes: 2 }),
        createMessageService(opened.database, { lanes: 2 }),
      ]
      let writing = true
      const read: number[] = []
      const reader = (async () => {
        for (let last = false; ; ) {
          const { items } = await messages.list(scope, thread, { after: read.at(-1) ?? 0, limit: 50 })
          read.push(...items.map(({ seq }) => seq))
          if (last && items.length === 0) return
          last = !writing
        }
      })()
      const write = async (writer: number) => {
        const own: number[] = []
        for (let n = 0; n < each; n++) {
          const service = services[writer % services.length] as MessageService
          const [message] = await service.append(scope, thread, [user(`${writer}-${n}`)])
          own.push(message?.seq as number)
        }
        return own
      }
      const given = await Promise.all(Array.from({ length: writers }, (_, writer) => write(writer)))
      writing = false
      await reader
      expect(given.flat().sort((a, b) => a - b)).toEqual(range(1, writers * each))
      for (const own of given) expect(own).toEqual([...own].sort((a, b) => a - b))
      expect(read).toEqual(range(1, writers * each))
      expect(new Set(await contents(thread)).size).toBe(writers * each)
      // none named a parent: each follows the one before it
      const stored = await all(thread)
      expect(stored.slice(1).map(({ parentId }) => parentId)).toEqual(stored.slice(0, -1).map(({ id }) => id))
    })

    test('calls that leave together keep their own result and their own error', async () => {
      const threads = await Promise.all([newThread(), newThread(), newThread()])
      const [one, two, three] = threads as [string, string, string]
      const gone = randomUUID()
      await messages.append(scope, one, [user('taken', { messageId: 'taken' })])
      await messages.append(scope, two, [user('taken', { messageId: 'taken' })])
      const code = (call: Promise<unknown>) =>
        call.then(
          () => 'ok',
          (error: { code?: string }) => error.code,
        )
      const append = (thread: string, ...list: NewMessage[]) => messages.append(scope, thread, list)
      const calls = [
        append(one, user('a')),
        append(gone, user('b')),
        append(one, user('c1'), user('other', { messageId: 'taken' }), user('c2')),
        append(two, user('d', { parentId: 'nobody' })),
        append(
          two,
          user('e1', { messageId: 'e1' }),
          user('e2', { parentId: 'e1' }),
          user('e3', { parentId: 'e1' }),
        ),
        append(
          three,
          user('f', {
            // one character to a reader, 301 to the database, which alone counts them so
            messageId: `e${'\u0301'.repeat(300)}`,
          }),
        ),
        append(three, user('g')),
        append(one, user('taken', { messageId: 'taken' })),
        append(three, user('h1', { messageId: 'h' }), user('h2')),
        append(three, user('i', { parentId: 'h' })),
        messages.append({ userId: 'stranger' }, one, [user('j')]),
      ]
      expect(await Promise.all(calls.map(code))).toEqual([
        'ok',
        'not_found',
        'conflict',
        'invalid_input',
        'ok',
        'invalid_input',
        'ok',
        'ok',
        'ok',
        'ok',
        'not_found',
      ])
      expect(await contents(one)).toEqual(['taken', 'a'])
      expect(await contents(two)).toEqual(['taken', 'e1', 'e2', 'e3'])
      const e = (await all(two)).slice(1)
      expect(e.map(({ parentId }) => parentId)).toEqual([(await all(two))[0]?.id, e[0]?.id, e[0]?.id])
      expect((await contents(three)).sort()).toEqual(['g', 'h1', 'h2', 'i'])
      const [g, h1, i] = await Promise.all([calls[6], calls[8], calls[9]])
      expect(i).toMatchObject([{ parentId: (h1 as Message[])[0]?.id, content: 'i' }])
      expect(g).toMatchObject([{ content: 'g', threadId: three }])
      for (const thread of threads)
        expect((await all(thread)).map(({ seq }) => seq)).toEqual(range(1, (await all(thread)).length))
    })

    test('many callers on many threads each get their own messages back', async () => {
      const threads = await Promise.all(Array.from({ length: 10 }, newThread))
      const calls = Array.from({ length: 200 }, (_, n) => ({
        thread: threads[n % 10] as string,
        n,
        size: (n % 3) + 1,
      }))
      const results = await Promise.all(
        calls.map(({ thread, n, size }) =>
          messages.append(
            scope,
            thread,
            range(1, size).map((i) => user(`${n}.${i}`, n % 5 === 0 ? { messageId: `${n}.${i}` } : {})),
          ),
        ),
      )
      for (const [c, { thread, n, size }] of calls.entries()) {
        const own = results[c] as Message[]
        expect(own.map(({ content }) => content)).toEqual(range(1, size).map((i) => `${n}.${i}`))
        expect(own.every(({ threadId }) => threadId === thread)).toBe(true)
        const first = own[0]?.seq as number
        expect(own.map(({ seq }) => seq)).toEqual(range(first, first + size - 1))
      }
      for (const thread of threads) {
        const stored = await all(thread)
        expect(stored.map(({ seq }) => seq)).toEqual(range(1, stored.length))
      }
    })

    test('a thread that is deleted among appends: stored and gone, or not found, never half', async () => {
      const thread = await newThread()
      const calls = Array.from({ length: 20 }, (_, n) => messages.append(scope, thread, [user(n)]))
      const gone = opened.tb.threads.delete(scope, thread)
      const late = Array.from({ length: 20 }, (_, n) => messages.append(scope, thread, [user(n)]))
      const results = await Promise.allSettled([...calls, ...late])
      expect(await gone).toBe(true)
      for (const result of results) {
        if (result.status === 'rejected') expect(result.reason).toMatchObject({ code: 'not_found' })
      }
      await expect(messages.list(scope, thread)).rejects.toMatchObject({ code: 'not_found' })
    })

    test('what a caller sees of its own message is what is stored, time included', async () => {
      const thread = await newThread()
      const answered = await messages.append(scope, thread, [
        user('x'),
        user(['y', { type: 'text', text: 'z' }]),
      ])
      expect((await messages.list(scope, thread)).items).toEqual(answered)
    })
  })
}
