import { randomUUID } from 'node:crypto'
import { setTimeout as delay } from 'node:timers/promises'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { answerOf, conversationStores, type OpenedConversations } from '../../test/conversation-stores.ts'
import type { ConversationStore, TurnStore } from './store.ts'

const conflict = { code: 'conflict' }

for (const { name, available, open } of conversationStores) {
  describe.skipIf(!available)(`answers under way in ${name}`, () => {
    let opened: OpenedConversations
    let store: ConversationStore
    let turns: TurnStore
    let users = 0
    let scope = { userId: '' }
    let id = ''
    const [a, b] = [randomUUID(), randomUUID()]
    const { stage1, stage2, metadata } = answerOf('so')
    beforeAll(async () => {
      opened = await open()
      store = opened.store
      turns = store.turns
    })
    afterAll(() => opened?.close())
    beforeEach(async () => {
      scope = { userId: `user-${++users}` }
      id = (await store.createConversation(scope)).id
    })
    const begin = (holder: string, content = 'Why?', leaseS = 60) =>
      turns.begin(scope, id, { content, holder, leaseS })
    const messages = async () => (await store.getConversation(scope, id)).messages
    const question = { role: 'user', content: 'Why?' }

    test('a question is stored when it begins, its answer when it ends', async () => {
      expect(await begin(a)).toEqual({ turn: { content: 'Why?' }, first: true, resumed: false })
      expect(await messages()).toEqual([question])
      await turns.save(scope, id, a, { content: 'Why?', stage1 }, 60)
      expect(await messages()).toEqual([question])
      const answer = { role: 'assistant', ...answerOf('so') }
      expect(await turns.finish(scope, id, a, answerOf('so'))).toEqual(answer)
      expect(await messages()).toEqual([question, answer])
      expect(await begin(b)).toEqual({ turn: { content: 'Why?' }, first: false, resumed: false })
      expect(await messages()).toEqual([question, answer, question])
    })

    test('one at a time answers in a conversation', async () => {
      await begin(a)
      await expect(begin(b)).rejects.toMatchObject(conflict)
      await expect(begin(b, 'Another?')).rejects.toMatchObject(conflict)
      await expect(turns.save(scope, id, b, { content: 'Why?', stage1 }, 60)).rejects.toMatchObject(conflict)
      await expect(turns.finish(scope, id, b, answerOf('b'))).rejects.toMatchObject(conflict)
      await turns.release(scope, id, b)
      await expect(begin(b)).rejects.toMatchObject(conflict)
      expect(await messages()).toEqual([question])
      const other = (await store.createConversation(scope)).id
      await turns.begin(scope, other, { content: 'Why?', holder: b, leaseS: 60 })
    })

    test('of eight who begin at once one answers', async () => {
      const outcomes = await Promise.allSettled(Array.from({ length: 8 }, () => begin(randomUUID())))
      const reasons = outcomes.flatMap((one) => (one.status === 'rejected' ? [one.reason] : []))
      expect(reasons).toHaveLength(7)
      for (const reason of reasons) expect(reason).toMatchObject(conflict)
      expect(await messages()).toEqual([question])
    })

    test('who asks again goes on with what was saved', async () => {
      await begin(a)
      const saved = { content: 'Why?', stage1, stage2, metadata: metadata ?? {} }
      await turns.save(scope, id, a, saved, 60)
      await turns.release(scope, id, a)
      expect(await begin(b)).toEqual({ turn: saved, first: true, resumed: true })
      await expect(turns.save(scope, id, a, saved, 60)).rejects.toMatchObject(conflict)
      await turns.finish(scope, id, b, answerOf('so'))
      expect(await messages()).toHaveLength(2)
    })

    test('a question that was stored before there was a turn is resumed', async () => {
      await store.addUserMessage(scope, id, 'Why?')
      expect(await begin(a)).toEqual({ turn: { content: 'Why?' }, first: true, resumed: true })
      expect(await messages()).toEqual([question])
    })

    test('another question begins anew', async () => {
      await begin(a)
      await turns.save(scope, id, a, { content: 'Why?', stage1 }, 60)
      await turns.release(scope, id, a)
      const how = { content: 'How?' }
      expect(await begin(b, 'How?')).toEqual({ turn: how, first: false, resumed: false })
      expect(await messages()).toEqual([question, { role: 'user', ...how }])
    })

    test('a lease that ran out is free for others, until it is prolonged', async () => {
      await begin(a, 'Why?', 1)
      await expect(begin(b)).rejects.toMatchObject(conflict)
      await delay(1_100)
      // nobody took it meanwhile
      await turns.save(scope, id, a, { content: 'Why?', stage1 }, 60)
      await expect(begin(b)).rejects.toMatchObject(conflict)
      await turns.save(scope, id, a, { content: 'Why?', stage1 }, 0)
      expect(await begin(b)).toEqual({ turn: { content: 'Why?', stage1 }, first: true, resumed: true })
      await expect(turns.save(scope, id, a, { content: 'Why?' }, 60)).rejects.toMatchObject(conflict)
      await expect(turns.finish(scope, id, a, answerOf('a'))).rejects.toMatchObject(conflict)
      await turns.release(scope, id, a)
      await turns.finish(scope, id, b, answerOf('b'))
      expect(await messages()).toEqual([question, { role: 'assistant', ...answerOf('b') }])
    })

    test("one that ended is nobody's", async () => {
      await begin(a)
      await turns.finish(scope, id, a, answerOf('a'))
      await expect(turns.finish(scope, id, a, answerOf('again'))).rejects.toMatchObject(conflict)
      await expect(turns.save(scope, id, a, { content: 'Why?' }, 60)).rejects.toMatchObject(conflict)
      await turns.release(scope, id, a)
      expect(await messages()).toHaveLength(2)
    })

    test('an answer that is none is refused, and the turn goes on', async () => {
      await begin(a)
      await expect(turns.finish(scope, id, a, {} as never)).rejects.toMatchObject({ code: 'invalid_input' })
      await expect(begin(b)).rejects.toMatchObject(conflict)
      await turns.finish(scope, id, a, answerOf('a'))
    })

    test('of a conversation that is gone, or of another user, there is none', async () => {
      const missing = { code: 'not_found' }
      await begin(a)
      const other = { userId: `${scope.userId}-other` }
      await expect(turns.begin(other, id, { content: 'x', holder: b, leaseS: 60 })).rejects.toMatchObject(
        missing,
      )
      await expect(turns.save(other, id, a, { content: 'Why?' }, 60)).rejects.toMatchObject(missing)
      await expect(turns.finish(other, id, a, answerOf('x'))).rejects.toMatchObject(missing)
      await turns.release(other, id, a)
      await store.deleteConversation(scope, id)
      await expect(turns.save(scope, id, a, { content: 'Why?' }, 60)).rejects.toMatchObject(missing)
      await expect(turns.finish(scope, id, a, answerOf('x'))).rejects.toMatchObject(missing)
      await turns.release(scope, id, a)
      await store.createConversation(scope, id)
      expect(await begin(b)).toMatchObject({ first: true, resumed: false })
    })
  })
}
