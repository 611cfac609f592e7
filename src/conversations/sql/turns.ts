import { userOf } from '../../core/scope.ts'
import type { Database } from '../../db/database.ts'
import type { InnerMessageService } from '../../messages/service.ts'
import { answerMessage, conversationNotFound, questionOf, turnConflict } from '../checks.ts'
import { requireConversationId, threadIdOf } from '../ids.ts'
import { fromMessage, toMessage } from '../mapping.ts'
import type { TurnStore } from '../store.ts'
import * as repo from './repo.ts'

/** The answers under way, as rows of `council_turns`. */
export function createTurns(
  { forUser }: Pick<Database, 'forUser'>,
  messages: Pick<InnerMessageService, 'appendIn' | 'appended'>,
): TurnStore {
  /** @throws not_found, or conflict: why a turn is not the caller's */
  async function explain(userId: string, id: string, threadId: string): Promise<never> {
    if ((await repo.findThread(forUser(userId), userId, threadId)) === undefined)
      throw conversationNotFound(id)
    throw turnConflict(id)
  }

  return {
    async begin(scope, id, { content, holder, leaseS }) {
      const userId = userOf(scope)
      const threadId = threadIdOf(requireConversationId(id))
      const question = questionOf(content)
      const lease = { holder, leaseS }
      // at once: who is overtaken by the end of its lease must not store the question a second time
      const begun = await forUser(userId)
        .transaction()
        .execute(async (tx) => {
          if (!(await repo.lockThread(tx, userId, threadId))) throw conversationNotFound(id)
          const taken = await repo.takeTurn(tx, userId, threadId, lease)
          if (taken === undefined) throw turnConflict(id)
          const [last, before] = await repo.lastMessages(tx, userId, threadId, 2)
          const resumed = last !== undefined && isQuestion(last, content)
          if (!resumed) await messages.appendIn(tx, scope, threadId, [toMessage(question)])
          const stored = resumed && taken.state?.content === content ? taken.state : { content }
          await repo.saveTurn(tx, userId, threadId, lease, stored)
          return { turn: stored, first: resumed ? before === undefined : last === undefined, resumed }
        })
      messages.appended()
      return begun
    },

    async save(scope, id, holder, turn, leaseS) {
      const userId = userOf(scope)
      const threadId = threadIdOf(requireConversationId(id))
      if (!(await repo.saveTurn(forUser(userId), userId, threadId, { holder, leaseS }, turn)))
        await explain(userId, id, threadId)
    },

    async finish(scope, id, holder, answer) {
      const userId = userOf(scope)
      const threadId = threadIdOf(requireConversationId(id))
      const message = answerMessage(answer)
      await forUser(userId)
        .transaction()
        .execute(async (tx) => {
          // first the thread, as who deletes it does
          if (!(await repo.lockThread(tx, userId, threadId))) throw conversationNotFound(id)
          if (!(await repo.deleteTurn(tx, userId, threadId, holder))) throw turnConflict(id)
          await messages.appendIn(tx, scope, threadId, [toMessage(message)])
        })
      messages.appended()
      return message
    },

    async release(scope, id, holder) {
      const userId = userOf(scope)
      await repo.releaseTurn(forUser(userId), userId, threadIdOf(requireConversationId(id)), holder)
    },
  }
}

function isQuestion(row: repo.MessageRow, content: string): boolean {
  const message = fromMessage(row)
  return message.role === 'user' && message.content === content
}
