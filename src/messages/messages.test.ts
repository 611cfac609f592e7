import { randomUUID } from 'node:crypto'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { anyJson, anyJsonObject, comparable } from '../../test/arbitraries.ts'
import { engines, type TestDatabase } from '../../test/harness.ts'
import { encodeCursor } from '../core/pages.ts'
import type { Message, MessageQuery, NewMessage } from './schema.ts'
import type { MessageService } from './service.ts'

const user = (content: unknown, more: Partial<NewMessage> = {}): NewMessage => ({
  role: 'user',
  content,
  ...more,
})

for (const engine of engines) {
  describe.skipIf(!engine.available)(`messages on ${engine.name}`, () => {
    let opened: TestDatabase
    let messages: MessageService
    beforeAll(async () => {
      opened = await engine.open()
      messages = opened.tb.messages
    })
    afterAll(() => opened?.close())
    const scope = { userId: 'writer' }
    const newThread = async () => (await opened.tb.threads.create(scope)).id
    const seqs = (list: Message[]) => list.map(({ seq }) => seq)

    test('a message comes back with all of its fields', async () => {
      const thread = await newThread()
      const given: NewMessage = {
        messageId: 'call-1',
        role: 'tool',
        content: [
          { type: 'text', text: 'four' },
          { type: 'image_url', image_url: { url: 'x' } },
        ],
        toolName: 'add',
        toolInput: { b: 2, a: 2 },
        toolOutput: 4,
        meta: { tokens: 12 },
        createdAt: '2020-02-29T12:00:00.123+01:00',
      }
      const [stored] = await messages.append(scope, thread, [given])
      expect(stored).toEqual({
        ...given,
        id: expect.stringMatching(/^[0-9a-f-]{36}$/),
        threadId: thread,
        seq: 1,
        parentId: null,
        text: 'four',
        createdAt: new Date('2020-02-29T11:00:00.123Z'),
      })
      expect(await messages.getMessage(scope, thread, stored?.id as string)).toEqual(stored)
      expect((await messages.list(scope, thread)).items).toEqual([stored])
      const [plain] = await messages.append(scope, thread, [user('hello')])
      expect(plain).toMatchObject({
        text: 'hello',
        messageId: null,
        toolName: null,
        toolInput: null,
        toolOutput: null,
        meta: {},
      })
      expect(await messages.getMessage(scope, thread, plain?.id as string)).toEqual(plain)
    })

    test('any JSON is kept, key order, digits, NUL and surrogates included', async () => {
      const thread = await newThread()
      let n = 0
      const property = fc.asyncProperty(
        fc.array(
          fc.record({ content: anyJson, toolInput: anyJson, toolOutput: anyJson, meta: anyJsonObject }),
          {
            minLength: 1,
            maxLength: 5,
          },
        ),
        async (given) => {
          const input = given.map((message) => ({ role: 'user' as const, messageId: `m${n++}`, ...message }))
          const answered = await messages.append(scope, thread, input)
          const { items } = await messages.list(scope, thread, { after: (answered[0]?.seq as number) - 1 })
          for (const stored of [answered, items]) {
            for (const [i, { content, toolInput, toolOutput, meta }] of stored.entries()) {
              const expected = given[i] as (typeof given)[number]
              expect(JSON.stringify([content, toolInput, toolOutput])).toBe(
                JSON.stringify([expected.content, expected.toolInput, expected.toolOutput]),
              )
              expect(comparable(meta)).toEqual(comparable(expected.meta))
            }
          }
          // what was read can be sent again as it is, and is known
          const again = await messages.appendOrFind(
            scope,
            thread,
            items.map(({ messageId, role, content, toolInput, toolOutput }) => ({
              messageId,
              role,
              content,
              toolInput,
              toolOutput,
            })),
          )
          expect(again.map(({ created }) => created)).toEqual(items.map(() => false))
        },
      )
      await fc.assert(property, { numRuns: 60 })
    })

    test('pages by seq, forwards and backwards, from either end and from the middle', async () => {
      const thread = await newThread()
      await messages.append(
        scope,
        thread,
        Array.from({ length: 25 }, (_, n) => user(n + 1)),
      )
      const page = (query: MessageQuery) => messages.list(scope, thread, query)
      const up = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, n) => from + n)
      expect(seqs((await page({})).items)).toEqual(up(1, 25))
      expect(seqs((await page({ limit: 3 })).items)).toEqual([1, 2, 3])
      expect(seqs((await page({ limit: 3, order: 'desc' })).items)).toEqual([25, 24, 23])
      expect(seqs((await page({ limit: 3, after: 10 })).items)).toEqual([11, 12, 13])
      expect(seqs((await page({ limit: 3, before: 10 })).items)).toEqual([9, 8, 7])
      expect(seqs((await page({ limit: 3, before: 10, order: 'asc' })).items)).toEqual([1, 2, 3])
      expect(seqs((await page({ after: 10, before: 13 })).items)).toEqual([11, 12])
      expect(seqs((await page({ after: 25 })).items)).toEqual([])
      expect(seqs((await page({ before: 0 })).items)).toEqual([])
      for (const start of [
        { limit: 7 },
        { limit: 7, order: 'desc' },
        { limit: 4, after: 3, before: 20 },
        { limit: 2, before: 6 },
      ] as const) {
        const whole = seqs((await page({ ...start, limit: 200 })).items)
        const found: number[] = []
        let cursor: string | undefined
        do {
          const next: { items: Message[]; nextCursor?: string } = await page({ ...start, cursor })
          found.push(...seqs(next.items))
          cursor = next.nextCursor
        } while (cursor !== undefined)
        expect(found).toEqual(whole)
      }
    })

    test('a thread without messages is an empty page, one that is not there is not found', async () => {
      expect(await messages.list(scope, await newThread())).toEqual({ items: [] })
      await expect(messages.list(scope, randomUUID())).rejects.toMatchObject({ code: 'not_found' })
      await expect(messages.append(scope, randomUUID(), [user('x')])).rejects.toMatchObject({
        code: 'not_found',
      })
    })

    test('siblings make a tree; a leaf names its path', async () => {
      const thread = await newThread()
      const [q1, a1] = await messages.append(scope, thread, [user('q1', { messageId: 'q1' }), user('a1')])
      const [a1b] = await messages.append(scope, thread, [user('a1 again', { parentId: 'q1' })])
      const [q2] = await messages.append(scope, thread, [user('q2')])
      const [q2b] = await messages.append(scope, thread, [user('q2 edited', { parentId: a1?.id })])
      const [root] = await messages.append(scope, thread, [user('other root', { parentId: null })])
      expect([q1, a1, a1b, q2, q2b, root].map((message) => message?.parentId)).toEqual([
        null,
        q1?.id,
        q1?.id,
        a1b?.id,
        a1?.id,
        null,
      ])
      const path = async (leaf: Message | undefined, more: MessageQuery = {}) =>
        (await messages.list(scope, thread, { leaf: leaf?.id, ...more })).items.map(({ content }) => content)
      expect(await path(q2)).toEqual(['q1', 'a1 again', 'q2'])
      expect(await path(q2b)).toEqual(['q1', 'a1', 'q2 edited'])
      expect(await path(root)).toEqual(['other root'])
      expect(await path(q2, { order: 'desc', limit: 2 })).toEqual(['q2', 'a1 again'])
      expect(await path(q2, { after: 1 })).toEqual(['a1 again', 'q2'])
      expect(await path(q2, { before: 2 })).toEqual(['q1'])
      expect(await path(q1, { after: 1 })).toEqual([])
      const first = await messages.list(scope, thread, { leaf: q2?.id, limit: 2 })
      expect(await path(q2, { cursor: first.nextCursor, limit: 2 })).toEqual(['q2'])
      await expect(messages.list(scope, thread, { leaf: randomUUID() })).rejects.toMatchObject({
        code: 'not_found',
      })
      const elsewhere = await newThread()
      await expect(messages.list(scope, elsewhere, { leaf: q2?.id })).rejects.toMatchObject({
        code: 'not_found',
      })
    })

    test('a parent may come in the same call, and must be of this thread', async () => {
      const thread = await newThread()
      const [a, b, c] = await messages.append(scope, thread, [
        user('a', { messageId: 'a' }),
        user('b', { messageId: 'b' }),
        user('c', { parentId: 'a' }),
      ])
      expect([b?.parentId, c?.parentId]).toEqual([a?.id, a?.id])
      const other = await newThread()
      for (const parentId of [a?.id, 'a', 'nobody', randomUUID(), 'later']) {
        const call = messages.append(scope, other, [
          user('x', { parentId }),
          user('y', { messageId: 'later' }),
        ])
        await expect(call, parentId).rejects.toMatchObject({
          code: 'invalid_input',
          details: { field: 'parent_id' },
        })
      }
      expect((await messages.list(scope, other)).items).toEqual([])
    })

    test('delete gives children to the parent, and a seq is not used again', async () => {
      const thread = await newThread()
      const [a, b, c, d] = await messages.append(scope, thread, [
        user('a'),
        user('b', { messageId: 'b' }),
        user('c'),
        user('d', { parentId: 'b' }),
      ])
      expect(await messages.delete(scope, thread, b?.id as string)).toBe(true)
      expect(await messages.delete(scope, thread, b?.id as string)).toBe(false)
      const parents = (await messages.list(scope, thread)).items.map(({ content, parentId }) => [
        content,
        parentId,
      ])
      expect(parents).toEqual([
        ['a', null],
        ['c', a?.id],
        ['d', a?.id],
      ])
      await messages.delete(scope, thread, a?.id as string)
      expect((await messages.list(scope, thread)).items.map(({ parentId }) => parentId)).toEqual([null, null])
      await messages.delete(scope, thread, d?.id as string)
      const [next] = await messages.append(scope, thread, [user('e')])
      expect(next).toMatchObject({ seq: 5, parentId: c?.id })
      // the message id of a deleted message is free
      const again = await messages.appendOrFind(scope, thread, [user('new b', { messageId: 'b' })])
      expect(again).toMatchObject([{ created: true, message: { seq: 6 } }])
    })

    test('clear removes all messages; the thread goes on', async () => {
      const [thread, other] = [await newThread(), await newThread()]
      for (const id of [thread, other])
        await messages.append(scope, id, [
          user('a', { messageId: 'a' }),
          user('b'),
          user('c', { parentId: 'a' }),
        ])
      expect(await messages.clear(scope, thread)).toBe(3)
      expect(await messages.clear(scope, thread)).toBe(0)
      expect((await messages.list(scope, thread)).items).toEqual([])
      expect((await messages.list(scope, other)).items).toHaveLength(3)
      const again = await messages.append(scope, thread, [user('a', { messageId: 'a' })])
      expect(again).toMatchObject([{ seq: 4, parentId: null }])
      expect(await messages.clear(scope, randomUUID())).toBe(0)
      await expect(messages.clear(scope, 'x')).rejects.toMatchObject({ code: 'invalid_input' })
    })

    test('update merges meta and changes nothing else', async () => {
      const thread = await newThread()
      const [message] = await messages.append(scope, thread, [user('x', { meta: { a: 1, b: 2 } })])
      const changed = await messages.update(scope, thread, message?.id as string, {
        meta: { b: null, 'c\0': 3 },
      })
      expect(changed).toEqual({ ...message, meta: { a: 1, 'c\0': 3 } })
      expect(
        (await messages.update(scope, thread, message?.id as string, { meta: { 'c\0': null } })).meta,
      ).toEqual({ a: 1 })
      const call = messages.update(scope, thread, message?.id as string, { content: 'y' } as never)
      await expect(call).rejects.toMatchObject({ code: 'invalid_input' })
    })

    test('absence: find is undefined, get and update are not_found, delete is false', async () => {
      const thread = await newThread()
      const elsewhere = await newThread()
      const [message] = await messages.append(scope, elsewhere, [user('x')])
      for (const id of [randomUUID(), message?.id as string]) {
        expect(await messages.findMessage(scope, thread, id)).toBeUndefined()
        await expect(messages.getMessage(scope, thread, id)).rejects.toMatchObject({ code: 'not_found' })
        await expect(messages.update(scope, thread, id, { meta: {} })).rejects.toMatchObject({
          code: 'not_found',
        })
        expect(await messages.delete(scope, thread, id)).toBe(false)
      }
      expect((await messages.list(scope, elsewhere)).items).toHaveLength(1)
    })

    test('1,000 messages are one append, 1,001 are too many', async () => {
      const thread = await newThread()
      const many = (count: number) => Array.from({ length: count }, (_, n) => user(`m${n}`))
      await expect(messages.append(scope, thread, many(1_001))).rejects.toMatchObject({
        code: 'invalid_input',
      })
      const stored = await messages.append(scope, thread, many(1_000))
      expect(seqs(stored)).toEqual(Array.from({ length: 1_000 }, (_, n) => n + 1))
    })

    const deep = (levels: number) => JSON.parse('['.repeat(levels) + ']'.repeat(levels))
    test.each([
      ['no messages', []],
      ['no list', user('x')],
      ['null', [null]],
      ['no content', [{ role: 'user' }]],
      ['a role that is none', [{ role: 'robot', content: 'x' }]],
      ['an unknown field', [user('x', { mesage_id: 'a' } as never)]],
      ['a message id with NUL', [user('x', { messageId: 'a\0' })]],
      ['a message id with half a surrogate pair', [user('x', { messageId: '\ud800' })]],
      ['an empty message id', [user('x', { messageId: '' })]],
      ['a message id of 256 characters', [user('x', { messageId: 'x'.repeat(256) })]],
      ['a parent id with NUL', [user('x', { parentId: 'a\0' })]],
      ['a tool name with NUL', [user('x', { toolName: 'a\0' })]],
      ['a time that is none', [user('x', { createdAt: 'yesterday' })]],
      ['a day that does not exist', [user('x', { createdAt: '2026-02-31T25:00:00Z' })]],
      ['a day that does not exist, with a space', [user('x', { createdAt: '0001-01-32 12:00:00Z' })]],
      ['an offset that does not exist', [user('x', { createdAt: '2026-01-31 12:00:00+25:00' })]],
      ['a Date that is none', [user('x', { createdAt: new Date(Number.NaN) })]],
      ['content that JSON cannot hold', [user({ n: 1n })]],
      ['content too deep', [user(deep(600))]],
      ['content far too deep', [user(deep(100_000))]],
      ['a tool result far too deep', [user('x', { toolOutput: deep(100_000) })]],
      ['meta far too deep', [user('x', { meta: { a: deep(100_000) } })]],
      ['meta that is a list', [user('x', { meta: [] as never })]],
    ])('%s is invalid input', async (_, input) => {
      const thread = await newThread()
      await expect(messages.append(scope, thread, input as never)).rejects.toMatchObject({
        code: 'invalid_input',
      })
      expect((await messages.list(scope, thread)).items).toEqual([])
    })

    test.each([
      [{ limit: 0 }],
      [{ limit: 201 }],
      [{ before: -1 }],
      [{ after: 1.5 }],
      [{ order: 'up' }],
      [{ leaf: 'x' }],
      [{ offset: 1 }],
      [{ cursor: 'x' }],
      [{ cursor: encodeCursor('threads', [1, 'a']) }],
      [{ cursor: encodeCursor('messages', ['asc', 1.5]) }],
      [{ cursor: encodeCursor('messages', ['asc', 1e300]) }],
    ])('a list with %j is invalid input', async (query) => {
      const thread = await newThread()
      await expect(messages.list(scope, thread, query as never)).rejects.toMatchObject({
        code: 'invalid_input',
      })
    })
  })
}
