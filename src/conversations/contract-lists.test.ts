import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import {
  answerOf,
  conversationOf,
  conversationStores,
  type OpenedConversations,
} from '../../test/conversation-stores.ts'
import type { Conversation } from './schema.ts'
import type { ConversationStore } from './store.ts'

for (const { name, available, open } of conversationStores) {
  describe.skipIf(!available)(`lists of conversations in ${name}`, () => {
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

    test('the list has the newest first, ids descending among equals, in pages', async () => {
      const times = [
        '2026-01-01T00:00:00',
        '2026-01-01T00:00:00.500000',
        '2026-01-01T00:00:00.750+00:00',
        '2026-01-01T02:00:00+02:00',
        '2026-01-01T00:00:01Z',
        '2026-01-01T00:00:00.500Z',
        '2025-06-01T00:00:00.123456',
      ]
      const ids = times.map((_, i) => `0192f0c1-2f6b-7cc0-8d2e-5f0a6d2f4b1${i}`)
      for (const [i, created_at] of times.entries())
        await store.saveConversation(scope, conversationOf(ids[i] as string, [], { created_at }))
      const expected = [4, 2, 5, 1, 3, 0, 6].map((i) => ids[i])
      expect(await idsOf()).toEqual(expected)
      expect((await store.listConversations(scope)).map(({ created_at }) => created_at)).toEqual(
        [4, 2, 5, 1, 3, 0, 6].map((i) => times[i]),
      )
      for (const limit of [1, 2, 3, 100]) {
        const seen: string[] = []
        for (let after: { id: string; created_at: string } | undefined; ; ) {
          const page = await store.listConversations(scope, { limit, after })
          seen.push(...page.map(({ id }) => id))
          after = page.at(-1)
          if (page.length < limit) break
        }
        expect(seen).toEqual(expected)
      }
      await store.deleteConversation(scope, ids[4] as string)
      expect(await idsOf()).toEqual(expected.slice(1))
    })

    test('what was deleted is gone, and its id is free', async () => {
      await save(conversationOf('gone', [{ role: 'user', content: 'old' }]))
      expect(await store.deleteConversation(scope, 'gone')).toBe(true)
      expect(await store.deleteConversation(scope, 'gone')).toBe(false)
      expect(await store.findConversation(scope, 'gone')).toBeUndefined()
      expect(await idsOf()).toEqual([])
      expect((await store.createConversation(scope, 'gone')).messages).toEqual([])
    })

    test('users have nothing of each other, and the same ids', async () => {
      const other = { userId: `${scope.userId}-other` }
      await save(conversationOf('shared', [{ role: 'user', content: 'mine alone' }]))
      expect(await store.findConversation(other, 'shared')).toBeUndefined()
      expect(await store.listConversations(other)).toEqual([])
      expect(await store.search(other, 'mine')).toEqual([])
      expect(await store.deleteConversation(other, 'shared')).toBe(false)
      const missing = { code: 'not_found' }
      await expect(store.addUserMessage(other, 'shared', 'x')).rejects.toMatchObject(missing)
      await expect(store.updateConversationTitle(other, 'shared', 'x')).rejects.toMatchObject(missing)
      await expect(store.export(other, 'shared', 'json')).rejects.toMatchObject(missing)
      await store.saveConversation(other, conversationOf('shared', [], { user_id: scope.userId }))
      await store.addUserMessage(other, 'shared', 'theirs')
      expect((await store.getConversation(scope, 'shared')).messages).toEqual([
        { role: 'user', content: 'mine alone' },
      ])
      await store.deleteConversation(other, 'shared')
      expect(await idsOf()).toEqual(['shared'])
    })

    test('finds texts in any case, in titles, questions and answers', async () => {
      const at = (n: number) => ({ created_at: `2026-01-0${n}T00:00:00+00:00` })
      await save(conversationOf('t', [], { ...at(4), title: 'Über 100%_x' }))
      await save(
        conversationOf(
          'q',
          [{ role: 'user', content: `${'long '.repeat(50)}ÜBER *all* ${'and '.repeat(50)}` }],
          at(3),
        ),
      )
      await save(
        conversationOf(
          'a',
          [
            { role: 'user', content: 'hi' },
            { role: 'assistant', ...answerOf('über uns') },
          ],
          at(2),
        ),
      )
      await save(
        conversationOf(
          'n',
          [
            {
              role: 'assistant',
              ...answerOf('x'),
              stage2: [{ model: 'm', ranking: 'über', parsed_ranking: [] }],
            },
          ],
          at(1),
        ),
      )
      const hits = await store.search(scope, 'über')
      expect(hits.map(({ id }) => id)).toEqual(['t', 'q', 'a'])
      expect(hits[0]).toEqual({
        id: 't',
        created_at: '2026-01-04T00:00:00+00:00',
        title: 'Über 100%_x',
        message_count: 0,
        matches: [{ position: null, role: null, snippet: 'Über 100%_x' }],
      })
      expect(hits[1]?.matches).toEqual([
        { position: 0, role: 'user', snippet: expect.stringMatching(/^….*ÜBER \*all\* and .*…$/) },
      ])
      expect(hits[2]?.matches).toEqual([{ position: 1, role: 'assistant', snippet: 'A says über uns' }])
      expect((await store.search(scope, 'über', { limit: 2 })).map(({ id }) => id)).toEqual(['t', 'q'])
      for (const [q, ids] of [
        ['100%_x', ['t']],
        ['%', ['t']],
        ['_', ['t']],
        ['\\', []],
        ['*all*', ['q']],
        ['.*', []],
        ['\0', []],
      ] as const)
        expect(
          (await store.search(scope, q)).map(({ id }) => id),
          q,
        ).toEqual(ids)
      for (const q of ['', '  ', 'x'.repeat(1_001), undefined])
        await expect(store.search(scope, q as never)).rejects.toMatchObject({ code: 'invalid_input' })
      for (const limit of [0, -1, 1.5, 201])
        await expect(store.search(scope, 'x', { limit })).rejects.toMatchObject({ code: 'invalid_input' })
    })

    test('three matches of a conversation are told', async () => {
      const messages = Array.from({ length: 5 }, (_, i) => ({ role: 'user', content: `needle ${i}` }))
      await save(conversationOf('many', messages, { title: 'Needle' }))
      expect((await store.search(scope, 'needle'))[0]?.matches.map(({ position }) => position)).toEqual([
        null,
        0,
        1,
      ])
    })

    test('is exported for people and for programs', async () => {
      const document = await save(
        conversationOf('out', [
          { role: 'user', content: 'Why?\n```' },
          { role: 'assistant', ...answerOf('so') },
        ]),
      )
      expect(JSON.parse(await store.export(scope, 'out', 'json'))).toEqual(document)
      await expect(store.export(scope, 'out', 'html' as never)).rejects.toMatchObject({
        code: 'invalid_input',
      })
      const markdown = await store.export(scope, 'out', 'markdown')
      const inOrder = [
        '# Trip',
        'Why?',
        'one/a',
        'A says so',
        'two/b',
        'B says so',
        'Response B',
        '1.5',
        'Finally so',
      ]
      let last = -1
      for (const part of inOrder) {
        expect(markdown.indexOf(part, last), part).toBeGreaterThan(last)
        last = markdown.indexOf(part, last)
      }
    })
  })
}
