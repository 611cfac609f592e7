import { ThreadbaseError } from '../../core/errors.ts'
import { newId } from '../../core/ids.ts'
import { canonicalJson, toStorableText } from '../../core/json.ts'
import { userOf } from '../../core/scope.ts'
import type { Database } from '../../db/database.ts'
import type { InnerMessageService } from '../../messages/service.ts'
import type { ThreadService } from '../../threads/service.ts'
import {
  answerMessage,
  conversationExists,
  conversationNotFound,
  questionOf,
  requireConversation,
  requireLimit,
  requireTitle,
} from '../checks.ts'
import { requireConversationId, threadIdOf } from '../ids.ts'
import { fromMessage, fromThread, parseTime, toMessage, toThread, writeTime } from '../mapping.ts'
import { createMatcher, DEFAULT_HITS, MAX_HITS, MAX_MATCHES } from '../matches.ts'
import { renderConversation } from '../render.ts'
import { type Conversation, type ConversationSummary, type CouncilMessage, NEW_TITLE } from '../schema.ts'
import type { ConversationStore } from '../store.ts'
import * as repo from './repo.ts'
import { createTurns } from './turns.ts'

const MAX_INT = 2_147_483_647

export type SqlSlices = {
  threads: Pick<ThreadService, 'createMany' | 'delete'>
  messages: Pick<InnerMessageService, 'append' | 'appendIn' | 'appended'>
}

/** Conversations as threads of kind `council`, with a message for each question and each answer. */
export function createSqlConversations(
  { forUser, description }: Pick<Database, 'forUser' | 'description'>,
  { threads, messages }: SqlSlices,
): ConversationStore {
  async function findConversation(scope: { userId: string }, id: string): Promise<Conversation | undefined> {
    const userId = userOf(scope)
    const threadId = threadIdOf(requireConversationId(id))
    const [thread, rows] = await Promise.all([
      repo.findThread(forUser(userId), userId, threadId),
      repo.listMessages(forUser(userId), userId, threadId),
    ])
    return thread && ({ ...fromThread(thread), messages: rows.map(fromMessage) } as Conversation)
  }

  async function getConversation(scope: { userId: string }, id: string): Promise<Conversation> {
    const conversation = await findConversation(scope, id)
    if (conversation === undefined) throw conversationNotFound(id)
    return conversation
  }

  async function append(scope: { userId: string }, id: string, message: CouncilMessage) {
    const userId = userOf(scope)
    const threadId = threadIdOf(requireConversationId(id))
    // a thread of another kind is none of ours
    if ((await repo.findThread(forUser(userId), userId, threadId)) === undefined)
      throw conversationNotFound(id)
    await messages.append(scope, threadId, [toMessage(message)])
    return message
  }

  return {
    kind: 'sql',
    description,
    findConversation,
    getConversation,

    async createConversation(scope, id = newId()) {
      const now = new Date()
      const conversation = {
        id: requireConversationId(id),
        created_at: writeTime(now),
        title: NEW_TITLE,
        messages: [],
      }
      const row = { ...toThread(conversation), kind: 'council' as const, createdAt: now, updatedAt: now }
      const [outcome] = await threads.createMany(scope, [row])
      if (outcome === 'exists') throw conversationExists(id)
      if (outcome !== 'created') throw outcome ?? conversationExists(id)
      return conversation
    },

    async saveConversation(scope, conversation) {
      const userId = userOf(scope)
      const document = requireConversation(conversation)
      const thread = toThread(document)
      await forUser(userId)
        .transaction()
        .execute(async (tx) => {
          if (!(await repo.upsertThread(tx, userId, thread))) throw otherKind(document.id)
          const stored = await repo.listMessages(tx, userId, thread.id)
          const same = countSame(stored.map(fromMessage), document.messages)
          if (same < stored.length) await repo.deleteBehind(tx, userId, thread.id, stored[same - 1]?.seq ?? 0)
          await messages.appendIn(tx, scope, thread.id, document.messages.slice(same).map(toMessage))
        })
      messages.appended()
    },

    async listConversations(scope, { limit, after } = {}) {
      const userId = userOf(scope)
      const rows = await repo.listThreads(forUser(userId), userId, {
        limit: limit === undefined ? undefined : requireLimit(limit, MAX_INT),
        after: after && {
          id: threadIdOf(requireConversationId(after.id)),
          createdAt: parseTime(after.created_at) ?? new Date(0),
        },
      })
      return rows.map(toSummary)
    },

    addUserMessage: async (scope, id, content) => append(scope, id, questionOf(content)),

    addAssistantMessage: async (scope, id, answer) => append(scope, id, answerMessage(answer)),

    async updateConversationTitle(scope, id, title) {
      const userId = userOf(scope)
      const threadId = threadIdOf(requireConversationId(id))
      if (!(await repo.setTitle(forUser(userId), userId, threadId, requireTitle(title))))
        throw conversationNotFound(id)
    },

    async deleteConversation(scope, id) {
      const userId = userOf(scope)
      const threadId = threadIdOf(requireConversationId(id))
      if ((await repo.findThread(forUser(userId), userId, threadId)) === undefined) return false
      return threads.delete(scope, threadId)
    },

    async search(scope, q, { limit = DEFAULT_HITS } = {}) {
      const userId = userOf(scope)
      const match = createMatcher(q)
      const db = forUser(userId)
      // as what is searched is stored
      const wanted = toStorableText(q)
      const found = await repo.searchThreads(db, userId, wanted, requireLimit(limit, MAX_HITS))
      const ids = found.map(({ id }) => id)
      const rows = ids.length === 0 ? [] : await repo.searchMessages(db, userId, ids, wanted, MAX_MATCHES)
      return found.flatMap((thread) => {
        const summary = toSummary(thread)
        const said = rows.filter(({ threadId }) => threadId === thread.id)
        const matches = match(
          summary.title,
          said.map((row) => [row.position, fromMessage(row)]),
        )
        return matches.length > 0 ? [{ ...summary, matches }] : []
      })
    },

    async export(scope, id, format) {
      return renderConversation(await getConversation(scope, id), format)
    },

    turns: createTurns({ forUser }, messages),

    // the database is closed by who opened it
    close: async () => {},
  }
}

function toSummary({ messageCount, ...row }: repo.SummaryRow): ConversationSummary {
  const { id, created_at, title } = fromThread(row)
  return {
    id,
    created_at: typeof created_at === 'string' ? created_at : writeTime(row.createdAt),
    title: typeof title === 'string' ? title : NEW_TITLE,
    message_count: messageCount,
  }
}

/** How many messages are equal, from the first one on. */
function countSame(stored: CouncilMessage[], wanted: CouncilMessage[]): number {
  const differs = stored.findIndex(
    (message, i) => i >= wanted.length || canonicalJson(message) !== canonicalJson(wanted[i]),
  )
  return differs < 0 ? stored.length : differs
}

function otherKind(id: string): ThreadbaseError {
  return new ThreadbaseError('conflict', `${id} is a thread that is no conversation of a council`, {
    conversationId: id,
  })
}
