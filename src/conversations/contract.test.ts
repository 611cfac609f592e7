import fc from 'fast-check'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { anyJsonObject, anyText, comparable } from '../../test/arbitraries.ts'
import {
  answerOf,
  conversationOf,
  conversationStores,
  type OpenedConversations,
} from '../../test/conversation-stores.ts'
import { parseJson } from '../core/json.ts'
import type { Conversation, CouncilAnswer, CouncilMessage } from './schema.ts'
import type { ConversationStore } from './store.ts'

const ODD_TEXT = 'a\0b \ud800 \udc00 😀 é \u2028 \\u0000 "quoted" \r\n\t\uffff'
const GOOD_IDS = [
  '0192F0C1-2F6B-7CC0-8D2E-5F0A6D2F4B11',
  '0192f0c1-2f6b-7cc0-8d2e-5f0a6d2f4b11',
  'plain',
  'with space.and dots..',
  'naïve 😀',
  '__proto__',
  "'; drop table threads; --",
  '%2e%2e%2f',
  'x'.repeat(200),
]
const BAD_IDS = [
  '',
  '.',
  '..',
  '.hidden',
  '../../etc/passwd',
  '/etc/passwd',
  'a/b',
  'a\\b',
  'a\0b',
  'a\nb',
  'half \ud800',
  'x'.repeat(300),
  'é'.repeat(101),
]

for (const { name, available, open } of conversationStores) {
  describe.skipIf(!available)(`conversations in ${name}`, () => {
    let opened: OpenedConversations
    let store: ConversationStore
    let users = 0
    let scope = { userId: '' }
    beforeAll(async () => {
      opened = await open()
      store = opened.store
    })
    afterAll(() => opened?.close())
    beforeEach(() => {
      scope = { userId: `user-${++users}` }
    })
    const save = async (conversation: Conversation) => {
      await store.saveConversation(scope, conversation)
      return store.getConversation(scope, conversation.id)
    }
    const idsOf = async (options = {}) => (await store.listConversations(scope, options)).map(({ id }) => id)

    test('a new one has an id, a time, a title and no messages', async () => {
      const before = Date.now()
      const made = await store.createConversation(scope)
      expect(made).toMatchObject({ id: expect.any(String), title: 'New Conversation', messages: [] })
      expect(made.created_at).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00$/)
      expect(Math.abs(Date.parse(made.created_at) - before)).toBeLessThan(60_000)
      expect(await store.getConversation(scope, made.id)).toEqual(made)
      const { messages: _, ...facts } = made
      expect(await store.listConversations(scope)).toEqual([{ ...facts, message_count: 0 }])
    })

    test('ids may be any name of a file', async () => {
      for (const id of GOOD_IDS) {
        expect(await store.findConversation(scope, id)).toBeUndefined()
        expect((await store.createConversation(scope, id)).id).toBe(id)
        await store.addUserMessage(scope, id, `to ${id}`)
        await expect(store.createConversation(scope, id)).rejects.toMatchObject({ code: 'conflict' })
      }
      for (const id of GOOD_IDS)
        expect(await store.getConversation(scope, id)).toMatchObject({
          id,
          messages: [{ content: `to ${id}` }],
        })
      expect((await idsOf()).sort()).toEqual(GOOD_IDS.toSorted())
    })

    test('ids that are none are refused everywhere', async () => {
      const refused = { code: 'invalid_input' }
      for (const id of BAD_IDS) {
        await expect(store.createConversation(scope, id)).rejects.toMatchObject(refused)
        await expect(store.findConversation(scope, id)).rejects.toMatchObject(refused)
        await expect(store.getConversation(scope, id)).rejects.toMatchObject(refused)
        await expect(store.saveConversation(scope, conversationOf(id))).rejects.toMatchObject(refused)
        await expect(store.addUserMessage(scope, id, 'x')).rejects.toMatchObject(refused)
        await expect(store.addAssistantMessage(scope, id, answerOf('x'))).rejects.toMatchObject(refused)
        await expect(store.updateConversationTitle(scope, id, 'x')).rejects.toMatchObject(refused)
        await expect(store.deleteConversation(scope, id)).rejects.toMatchObject(refused)
        await expect(store.export(scope, id, 'json')).rejects.toMatchObject(refused)
      }
      expect(await store.listConversations(scope)).toEqual([])
    })

    test('what does not exist is not found', async () => {
      const missing = { code: 'not_found' }
      expect(await store.findConversation(scope, 'none')).toBeUndefined()
      expect(await store.deleteConversation(scope, 'none')).toBe(false)
      await expect(store.getConversation(scope, 'none')).rejects.toMatchObject(missing)
      await expect(store.addUserMessage(scope, 'none', 'x')).rejects.toMatchObject(missing)
      await expect(store.addAssistantMessage(scope, 'none', answerOf('x'))).rejects.toMatchObject(missing)
      await expect(store.updateConversationTitle(scope, 'none', 'x')).rejects.toMatchObject(missing)
      await expect(store.export(scope, 'none', 'markdown')).rejects.toMatchObject(missing)
    })

    test('messages are appended in order and come back as they are', async () => {
      const { id } = await store.createConversation(scope)
      const { metadata, ...bare } = answerOf('no metadata')
      const stored = [
        await store.addUserMessage(scope, id, 'Hello'),
        await store.addAssistantMessage(scope, id, answerOf('hello')),
        await store.addUserMessage(scope, id, ''),
        await store.addAssistantMessage(scope, id, bare),
        await store.addUserMessage(scope, id, ODD_TEXT),
        await store.addAssistantMessage(scope, id, {
          ...answerOf(ODD_TEXT),
          metadata: null,
          other: [1],
        } as CouncilAnswer),
      ]
      expect(stored).toEqual([
        { role: 'user', content: 'Hello' },
        { role: 'assistant', ...answerOf('hello') },
        { role: 'user', content: '' },
        { role: 'assistant', ...bare },
        { role: 'user', content: ODD_TEXT },
        { role: 'assistant', ...answerOf(ODD_TEXT), metadata: null, other: [1] },
      ])
      expect((await store.getConversation(scope, id)).messages).toEqual(stored)
      expect(await store.listConversations(scope)).toMatchObject([{ id, message_count: 6 }])
    })

    test('what is no message is refused', async () => {
      const { id } = await store.createConversation(scope)
      for (const content of [undefined, null, 1, {}, ['x']])
        await expect(store.addUserMessage(scope, id, content as never)).rejects.toMatchObject({
          code: 'invalid_input',
        })
      const { stage3, ...unfinished } = answerOf('x')
      for (const answer of [
        undefined,
        {},
        unfinished,
        { ...unfinished, stage3: null },
        { ...answerOf('x'), stage1: 1 },
      ])
        await expect(store.addAssistantMessage(scope, id, answer as never)).rejects.toMatchObject({
          code: 'invalid_input',
        })
      for (const messages of [undefined, 'x', [1], [null], [[]]])
        await expect(
          store.saveConversation(scope, { ...conversationOf(id), messages } as never),
        ).rejects.toMatchObject({ code: 'invalid_input' })
      expect((await store.getConversation(scope, id)).messages).toEqual([])
    })

    test('5 MB are a message, too', async () => {
      const { id } = await store.createConversation(scope)
      const text = 'é😀\0 "x" '.repeat(500_000)
      await store.addUserMessage(scope, id, text)
      await store.addUserMessage(scope, id, 'next')
      const { messages } = await store.getConversation(scope, id)
      expect(messages.map(({ content }) => (content === text ? 'same' : content))).toEqual(['same', 'next'])
    })

    test('fields that nobody knows, and numbers that no double holds, are kept', async () => {
      const text = `{"id":"exact","user_note":{"b":1,"a":[null]},"created_at":"2026-01-02T03:04:05.678901",
        "title":"T","messages":[{"role":"user","content":"x","at":12345678901234567890,"__proto__":{"x":1}},
        {"role":"assistant","stage1":[],"stage2":[],"stage3":{"model":"m","response":"r","cost":0.10000000000000000001},
        "metadata":null}],"big":1e400}`
      const document = parseJson(text) as Conversation
      const stored = await save(document)
      expect(comparable(stored)).toEqual(comparable(document))
      await store.addUserMessage(scope, 'exact', 'more')
      await store.updateConversationTitle(scope, 'exact', 'New')
      const expected = {
        ...document,
        title: 'New',
        messages: [...document.messages, { role: 'user', content: 'more' }],
      }
      expect(comparable(await store.getConversation(scope, 'exact'))).toEqual(comparable(expected))
      expect(comparable(parseJson(await store.export(scope, 'exact', 'json')))).toEqual(comparable(expected))
    })

    test('any document comes back as equal JSON', async () => {
      const message = fc.oneof(
        fc.record({ role: fc.constant('user'), content: anyText }),
        fc
          .tuple(anyJsonObject, anyJsonObject)
          .map(([fields, stage3]) => ({ ...fields, role: 'assistant', stage3 })),
        anyJsonObject,
      )
      const document = fc
        .tuple(anyJsonObject, anyText, fc.array(message, { maxLength: 4 }))
        .map(([fields, title, messages]) => ({
          ...fields,
          ...conversationOf('any', messages as CouncilMessage[], { title }),
        }))
      await fc.assert(
        fc.asyncProperty(document, async (one) => {
          expect(comparable(await save(one))).toEqual(comparable(one))
        }),
        { numRuns: 40 },
      )
    })

    test('titles have 1 to 500 characters', async () => {
      const { id } = await store.createConversation(scope)
      for (const title of ['x', '😀'.repeat(500), 'é "quoted" \\']) {
        await store.updateConversationTitle(scope, id, title)
        expect((await store.getConversation(scope, id)).title).toBe(title)
        expect(await store.listConversations(scope)).toMatchObject([{ title }])
      }
      for (const title of ['', 'x'.repeat(501), 'a\0b', '\ud800', undefined, 7])
        await expect(store.updateConversationTitle(scope, id, title as never)).rejects.toMatchObject({
          code: 'invalid_input',
        })
      expect((await store.getConversation(scope, id)).title).toBe('é "quoted" \\')
    })

    test('what is saved is new, longer, changed in places, shorter or empty', async () => {
      const said = (...texts: string[]) => texts.map((content) => ({ role: 'user', content }))
      for (const texts of [['a', 'b'], ['a', 'b', 'c'], ['a', 'X', 'c'], ['X'], [], ['a', 'b', 'c', 'd']]) {
        const wanted = conversationOf('saved', said(...texts), { title: texts.join() || 'none' })
        expect(await save(wanted)).toEqual(wanted)
        expect(await store.listConversations(scope)).toMatchObject([
          { title: wanted.title, message_count: texts.length, created_at: wanted.created_at },
        ])
      }
      await store.addUserMessage(scope, 'saved', 'e')
      expect((await store.getConversation(scope, 'saved')).messages).toEqual(said('a', 'b', 'c', 'd', 'e'))
      const { title, ...others } = conversationOf('saved', [], {
        extra: 1,
        created_at: '2025-01-01T00:00:00',
      })
      expect(await save({ ...others, title })).toEqual({ ...others, title })
    })

    test('saved by several at once it is one of theirs', async () => {
      const all = Array.from({ length: 6 }, (_, i) =>
        conversationOf('raced', [{ role: 'user', content: `${i}` }]),
      )
      await Promise.all(all.map((one) => store.saveConversation(scope, one)))
      expect(all).toContainEqual(await store.getConversation(scope, 'raced'))
    })

    test('a scope without a user is refused', async () => {
      for (const bad of [undefined, {}, { userId: '' }, { userId: 'a\0' }, { userId: 'x'.repeat(256) }])
        await expect(store.listConversations(bad as never)).rejects.toMatchObject({ code: 'invalid_input' })
    })

    test('32 messages at once are all there', async () => {
      const { id } = await store.createConversation(scope)
      const texts = Array.from({ length: 32 }, (_, i) => `message ${i}`)
      await Promise.all(texts.map((text) => store.addUserMessage(scope, id, text)))
      const { messages } = await store.getConversation(scope, id)
      expect(messages.map(({ content }) => content).sort()).toEqual(texts.sort())
    })
  })
}
