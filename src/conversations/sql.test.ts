import { randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { sql } from 'kysely'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { engines, type TestDatabase } from '../../test/harness.ts'
import { t } from '../db/schema.ts'
import { createMessageService } from '../messages/service.ts'
import { createSqlConversations } from './sql/store.ts'
import type { ConversationStore } from './store.ts'

for (const engine of engines) {
  describe.skipIf(!engine.available)(`conversations on ${engine.name}`, () => {
    let opened: TestDatabase
    beforeAll(async () => {
      opened = await engine.open()
    })
    afterAll(() => opened?.close())

    test('a question and its answer are messages of a thread', async () => {
      const { conversations, threads, messages } = opened.tb
      const scope = { userId: randomUUID() }
      const made = await conversations.createConversation(scope)
      const answer = {
        stage1: [{ model: 'a', response: 'one' }],
        stage2: [{ model: 'a', ranking: 'A', parsed_ranking: ['Response A'] }],
        stage3: { model: 'c', response: 'final' },
        metadata: { usage: [{ model: 'a', input_tokens: 1, output_tokens: 2 }] },
      }
      await conversations.addUserMessage(scope, made.id, 'why?')
      await conversations.addAssistantMessage(scope, made.id, answer)
      expect(await conversations.getConversation(scope, made.id)).toEqual({
        ...made,
        messages: [
          { role: 'user', content: 'why?' },
          { role: 'assistant', ...answer },
        ],
      })
      expect(await threads.getThread(scope, made.id)).toMatchObject({
        kind: 'council',
        title: 'New Conversation',
      })
      const { items } = await messages.list(scope, made.id)
      expect(items.map(({ text }) => text)).toEqual(['why?', 'final\none'])
      expect(items[1]?.meta).toEqual({ usage: answer.metadata.usage })
      expect(await conversations.listConversations(scope)).toEqual([
        { id: made.id, created_at: made.created_at, title: made.title, message_count: 2 },
      ])
    })

    test('totals count what the metadata of an answer says, however it is spelled', async () => {
      const { conversations, usage } = opened.tb
      const scope = { userId: randomUUID() }
      const spellings = [
        { usage: [{ model: 'list', input_tokens: 1, output_tokens: 2 }] },
        { usage: { model: 'object', prompt_tokens: 3, completion_tokens: 4 } },
        { usage: { prompt_tokens: 5, completion_tokens: 6 }, model: 'beside' },
        {
          usage_metadata: { input_tokens: 7, output_tokens: 8 },
          response_metadata: { model_name: 'langchain' },
        },
        { usage: [], model: 'nothing' },
        { usage: 'none', model: 'nothing' },
      ]
      const messages = spellings.map((metadata) => ({
        role: 'assistant',
        stage3: { response: 'x' },
        metadata,
      }))
      const document = { id: randomUUID(), created_at: '2026-01-01T00:00:00', title: 'x', messages }
      await conversations.saveConversation(scope, document as never)
      const totals = await usage.totals(scope)
      expect(
        totals.map(({ model, inputTokens, outputTokens }) => [model, inputTokens, outputTokens]),
      ).toEqual([
        ['beside', 5, 6],
        ['langchain', 7, 8],
        ['list', 1, 2],
        ['object', 3, 4],
      ])
      expect(await conversations.getConversation(scope, document.id)).toEqual(document)
    })

    test('totals count an answer once, however often its conversation is forked', async () => {
      const { conversations, threads, usage } = opened.tb
      const scope = { userId: randomUUID() }
      const { id } = await conversations.createConversation(scope)
      const answer = (inputTokens: number) => ({
        stage1: [],
        stage2: [],
        stage3: { model: 'm', response: 'x' },
        metadata: { usage: [{ model: 'm', input_tokens: inputTokens, output_tokens: 0 }] },
      })
      await conversations.addAssistantMessage(scope, id, answer(1))
      const fork = await threads.fork(scope, id)
      await sleep(5)
      await conversations.addAssistantMessage(scope, fork.id, answer(10))
      expect(await usage.totals(scope)).toMatchObject([{ calls: 2, inputTokens: 11 }])
      await conversations.deleteConversation(scope, id)
      expect(await usage.totals(scope)).toMatchObject([{ calls: 2, inputTokens: 11 }])
    })

    test('a counter that is full counts no further, and stops nobody without a limit', async () => {
      const { usage } = opened.tb
      const scope = { userId: randomUUID() }
      const today = new Date().toISOString().slice(0, 10)
      const full = { dailyUsed: 2_147_483_647, monthlyUsed: 2_147_483_647, totalQueries: 5 }
      const days = { lastResetDaily: today, lastResetMonthly: today }
      await usage.importRecords(
        new Map([[scope.userId, { tier: 'enterprise', dailyLimit: -1, monthlyLimit: -1, ...full, ...days }]]),
      )
      expect((await usage.consume(scope)).usage).toMatchObject({ dailyUsed: 2_147_483_647, totalQueries: 6 })
    })

    // the embedded store has one connection: nobody else deletes meanwhile
    test.skipIf(engine.name === 'pglite')(
      'a turn begun while its conversation is deleted finds none',
      async () => {
        const { conversations, database } = opened.tb
        const scope = { userId: randomUUID() }
        const { id } = await conversations.createConversation(scope)
        const turn = { content: 'x', holder: randomUUID(), leaseS: 10 }
        const begun = await database.db.transaction().execute(async (tx) => {
          await sql`delete from ${t.threads} where user_id = ${scope.userId} and id = ${id}::uuid`.execute(tx)
          const begun = conversations.turns.begin(scope, id, turn).catch((error) => error)
          await sleep(300)
          return { begun }
        })
        expect(await begun.begun).toMatchObject({ code: 'not_found' })
      },
    )

    test('a question is stored once, also by who was overtaken while it began', async () => {
      const { conversations, database, threads } = opened.tb
      const messages = createMessageService(database, { lanes: 1 })
      const scope = { userId: randomUUID() }
      const { id } = await conversations.createConversation(scope)
      const begin = (store: ConversationStore, leaseS: number) =>
        store.turns.begin(scope, id, { content: 'why?', holder: randomUUID(), leaseS })
      let other: Promise<unknown> | undefined
      const late = async () => {
        // the lease is over by now
        await sleep(30)
        other ??= begin(conversations, 10).catch(() => {})
        await Promise.race([other, sleep(100)])
      }
      const slow = createSqlConversations(database, {
        threads,
        messages: {
          append: async (...args) => late().then(() => messages.append(...args)),
          appendIn: async (...args) => late().then(() => messages.appendIn(...args)),
          appended: () => {},
        },
      })
      await begin(slow, 0.01).catch(() => {})
      await other
      const { messages: stored } = await conversations.getConversation(scope, id)
      expect(stored).toEqual([{ role: 'user', content: 'why?' }])
    })

    test('a thread of another kind is no conversation', async () => {
      const { conversations, threads } = opened.tb
      const scope = { userId: randomUUID() }
      const { id } = await threads.create(scope, { title: 'a chat' })
      const document = { id, created_at: 'x', title: 'y', messages: [] }
      const refused = { code: 'not_found' }
      expect(await conversations.findConversation(scope, id)).toBeUndefined()
      await expect(conversations.addUserMessage(scope, id, 'x')).rejects.toMatchObject(refused)
      await expect(conversations.updateConversationTitle(scope, id, 'x')).rejects.toMatchObject(refused)
      await expect(conversations.createConversation(scope, id)).rejects.toMatchObject({ code: 'conflict' })
      await expect(conversations.saveConversation(scope, document)).rejects.toMatchObject({
        code: 'conflict',
      })
      const turn = { content: 'x', holder: randomUUID(), leaseS: 10 }
      await expect(conversations.turns.begin(scope, id, turn)).rejects.toMatchObject(refused)
      expect(await conversations.deleteConversation(scope, id)).toBe(false)
      expect(await threads.getThread(scope, id)).toMatchObject({ title: 'a chat' })
    })
  })
}
