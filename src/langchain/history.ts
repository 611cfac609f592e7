import { BaseListChatMessageHistory } from '@langchain/core/chat_history'
import type { BaseMessage } from '@langchain/core/messages'
import { isThreadbaseError, ThreadbaseError } from '../core/errors.ts'
import { idFromName, isUuid } from '../core/ids.ts'
import { userOf } from '../core/scope.ts'
import { MAX_APPEND } from '../messages/schema.ts'
import type { Threadbase } from '../threadbase.ts'
import type { ThreadKind } from '../threads/schema.ts'
import { toLangChain, toNewMessage } from './messages.ts'

export type ChatMessageHistoryFields = {
  threadbase: Pick<Threadbase, 'threads' | 'messages'>
  userId: string
  /** Any text; a UUID is the id of the thread itself. */
  sessionId: string
  /** Of the thread, when the first message makes it. Default: none. */
  title?: string
  /** Default `chat`. */
  kind?: ThreadKind
}

/** Ids of threads are made of those of sessions in this namespace. Never change it: known sessions would be empty. */
const NAMESPACE = '8c0a2f56-6f0b-5e55-9a8e-3d1be2a4c7f1'

/**
 * The messages of a session, which is a thread of a user. It is made with the first message.
 *
 *     const withHistory = new RunnableWithMessageHistory({
 *       runnable,
 *       getMessageHistory: (sessionId) => new ThreadbaseChatMessageHistory({ threadbase: tb, userId: 'u1', sessionId }),
 *     })
 */
export class ThreadbaseChatMessageHistory extends BaseListChatMessageHistory {
  lc_namespace = ['threadbase', 'langchain']
  readonly threadId: string
  readonly #fields: ChatMessageHistoryFields

  /** @throws invalid_input for a user or a session that cannot be */
  constructor(fields: ChatMessageHistoryFields) {
    super()
    const { sessionId, userId } = fields
    userOf({ userId })
    if (typeof sessionId !== 'string' || sessionId === '')
      throw new ThreadbaseError('invalid_input', 'sessionId must be a text that is not empty', {
        field: 'sessionId',
      })
    this.#fields = fields
    this.threadId = isUuid(sessionId) ? sessionId.toLowerCase() : idFromName(NAMESPACE, sessionId)
  }

  /**
   * The path to the newest message, in order: of what was edited or answered again, the last version. Empty for a session
   * without messages.
   */
  override async getMessages(): Promise<BaseMessage[]> {
    const { threadbase, userId } = this.#fields
    const messages: BaseMessage[] = []
    const path = threadbase.messages.readPath({ userId }, this.threadId, Number.MAX_SAFE_INTEGER)
    for await (const page of path) messages.push(...page.map(toLangChain))
    return messages
  }

  override addMessage(message: BaseMessage): Promise<void> {
    return this.addMessages([message])
  }

  /**
   * Appends messages, 1,000 at a time, all of them or none. One with an id that is stored already is left out.
   * @throws conflict when what is stored under the id says something else
   */
  override async addMessages(messages: BaseMessage[]): Promise<void> {
    const { threadbase, userId } = this.#fields
    const rows = messages.map(toNewMessage)
    for (let at = 0; at < rows.length; at += MAX_APPEND) {
      const some = rows.slice(at, at + MAX_APPEND)
      try {
        await threadbase.messages.append({ userId }, this.threadId, some)
      } catch (error) {
        if (!isThreadbaseError(error, 'not_found')) throw error
        await this.#makeThread()
        await threadbase.messages.append({ userId }, this.threadId, some)
      }
    }
  }

  /** Removes the messages; the thread stays, with what else is in it. */
  override async clear(): Promise<void> {
    const { threadbase, userId } = this.#fields
    await threadbase.messages.clear({ userId }, this.threadId)
  }

  async #makeThread(): Promise<void> {
    const { threadbase, userId, sessionId, title = null, kind } = this.#fields
    const meta = sessionId === this.threadId ? {} : { langchain: { session_id: sessionId } }
    const thread = { id: this.threadId, title, kind, meta }
    // another process may do so at the same moment
    const [outcome] = await threadbase.threads.createMany({ userId }, [thread])
    if (outcome instanceof ThreadbaseError) throw outcome
  }
}
