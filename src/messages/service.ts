import { Type } from 'typebox'
import { ThreadbaseError } from '../core/errors.ts'
import { requireUuid } from '../core/ids.ts'
import { badCursor, decodeCursor, encodeCursor, type Page } from '../core/pages.ts'
import { type Scope, userOf } from '../core/scope.ts'
import { parseInput } from '../core/validate.ts'
import type { Database } from '../db/database.ts'
import type { Db } from '../db/schema.ts'
import { threadNotFound, whyMissing } from '../threads/service.ts'
import { appendByUser } from './append-by-user.ts'
import { appendIn, appendMany, type BulkAppend, type BulkAppended, withTextDate } from './append-many.ts'
import { type AppendBatch, createAppendQueue, type QueueStats } from './append-queue.ts'
import { createPathReader } from './path.ts'
import { type Prepared, prepareCall, requireAccepted, toStored } from './prepare.ts'
import * as repo from './repo.ts'
import { MAX_APPEND, type Message, MessagePatch, MessageQuery, NewMessage } from './schema.ts'

/** With what other slices call in their transactions. */
export type InnerMessageService = ReturnType<typeof createMessageService>
/** What users of the library have: transactions are not theirs. */
export type MessageService = Omit<InnerMessageService, 'appendIn' | 'appended'>

export type Appended = { message: Message /** False when it was stored before. */; created: boolean }

export type { BulkAppend, BulkAppended } from './append-many.ts'
export { digestMessage, type Prepared as PreparedMessage, prepareMessage } from './prepare.ts'
export type { StoredDigest } from './repo.ts'

const CURSOR = 'messages'
const PATH_PAGE = 200
const NewMessages = Type.Array(NewMessage, { maxItems: MAX_APPEND })

/**
 * Messages of a thread, in the order of `seq`. Every function takes the scope and the thread's id first; a thread of
 * another user is `not_found`, like one that does not exist.
 *
 * @param options.lanes how many append statements may be under way at the same time
 * @param options.onAppend told when messages were stored, after their transaction, and about how many
 */
export function createMessageService(
  database: Pick<Database, 'db' | 'forUser' | 'forUsers' | 'rls'>,
  { lanes, onAppend = () => {} }: { lanes: number; onAppend?: (rows: number) => void },
) {
  const { forUser } = database
  const store: AppendBatch =
    database.rls === 'enforce'
      ? appendByUser((parts) => repo.appendForUsers(database, parts))
      : (rows) => repo.appendRows(database.db, rows)
  const append: AppendBatch = async (rows) => {
    const outcomes = await store(rows)
    onAppend(rows.length)
    return outcomes
  }
  const enqueue = createAppendQueue(append, { lanes })
  const openPath = createPathReader(forUser)

  /** A thread that is not there may have been erased with its user. */
  const orErased = async (userId: string, read: () => Appended[]): Promise<Appended[]> => {
    try {
      return read()
    } catch (error) {
      throw await whyMissing(forUser(userId), userId, error)
    }
  }

  /** As {@link append}, and for each message whether this call stored it. */
  async function appendOrFind(scope: Scope, threadId: string, input: NewMessage[]): Promise<Appended[]> {
    const userId = userOf(scope)
    const thread = requireUuid(threadId, 'thread id')
    const messages = parseInput(
      NewMessages,
      Array.isArray(input) ? input.map(withTextDate) : input,
      'messages',
    ) as NewMessage[]
    if (messages.length === 0) throw new ThreadbaseError('invalid_input', 'there is no message to append')
    const { prepared, places } = prepareCall(userId, thread, messages)
    const outcomes = await enqueue({ userId, threadId: thread, rows: prepared.map(({ row }) => row) })
    const stored = await orErased(userId, () => toAppended(prepared, outcomes))
    const seen = new Set<number>()
    return places.map((place) => {
      const { message, created } = stored[place] as Appended
      const repeated = seen.has(place)
      seen.add(place)
      return { message, created: created && !repeated }
    })
  }

  return {
    appendOrFind,

    /**
     * Appends 1 to 1,000 messages, all or none, and answers with them as stored, in the order given. A known
     * `messageId` with equal role, content and tool fields is the stored message and changes nothing.
     * @throws not_found without such a thread; conflict for a known `messageId` with other content; invalid_input for
     *   a `parentId` that is no message of the thread
     */
    async append(scope: Scope, threadId: string, input: NewMessage[]): Promise<Message[]> {
      return (await appendOrFind(scope, threadId, input)).map(({ message }) => message)
    },

    /**
     * Appends to many threads in as few statements as they fit in, for imports. A thread comes at most once. A call
     * of more than 1,000 messages is stored in parts, in order, up to the first part that is refused: with a
     * `messageId` in every message it can be repeated and completes.
     * @returns one outcome a call, in order
     * @throws unavailable when the database does not answer
     */
    async appendMany(scope: Scope, calls: BulkAppend[]): Promise<BulkAppended[]> {
      return appendMany(enqueue, userOf(scope), calls)
    },

    /**
     * As {@link append}, of any number of messages, in a transaction of the caller's, whose handle is that of the scope's
     * user. Nothing is stored when it fails, since the transaction must end then. When it has ended, call
     * {@link appended}. @internal
     */
    async appendIn(tx: Db, scope: Scope, threadId: string, input: NewMessage[]): Promise<void> {
      await appendIn(tx, userOf(scope), requireUuid(threadId, 'thread id'), input)
    },

    /** A transaction with {@link appendIn} has ended well. @internal */
    appended: () => onAppend(1),

    /** What tells the messages of some threads that have a `messageId` from others, by thread and `seq`. */
    async listDigests(scope: Scope, threadIds: string[]): Promise<repo.StoredDigest[]> {
      const userId = userOf(scope)
      const ids = threadIds.map((id) => requireUuid(id, 'thread id'))
      return ids.length === 0 ? [] : repo.listDigests(forUser(userId), userId, ids)
    },

    /**
     * Messages by `seq`: 50 a page, 200 at most, forwards or backwards; with `leaf` only the path from the root to
     * that message. A page ends early when it holds 16 MB of JSON: `nextCursor` alone says whether there is more. @throws not_found without such a thread or leaf
     */
    async list(scope: Scope, threadId: string, input: MessageQuery = {}): Promise<Page<Message>> {
      const userId = userOf(scope)
      const thread = requireUuid(threadId, 'thread id')
      const query = parseInput(MessageQuery, input, 'query') as MessageQuery
      const range = readRange(query)
      const rows =
        query.leaf === undefined
          ? await repo.listMessages(forUser(userId), userId, thread, range)
          : await listPath(userId, thread, query.leaf, range)
      if (rows === undefined) throw threadNotFound(threadId)
      const { messages: items, more } = rows
      const last = items.at(-1)
      if (!more || last === undefined) return { items }
      return { items, nextCursor: encodeCursor(CURSOR, [range.order, last.seq]) }
    },

    /**
     * The path from the root to the newest of the messages up to `lastSeq`, in order, page by page; one page is read
     * when the reader asks for it. Empty without such a thread.
     */
    async *readPath(scope: Scope, threadId: string, lastSeq: number): AsyncGenerator<Message[]> {
      const path = openPath(userOf(scope), requireUuid(threadId, 'thread id'), lastSeq)
      for (let after = 0; ; ) {
        const { messages, more } = await path.page({ after, order: 'asc', limit: PATH_PAGE })
        if (messages.length > 0) yield messages
        if (!more) return
        after = messages.at(-1)?.seq ?? lastSeq
      }
    },

    /** Undefined when the thread has no such message. */
    async findMessage(scope: Scope, threadId: string, id: string): Promise<Message | undefined> {
      const userId = userOf(scope)
      const [thread, uuid] = [requireUuid(threadId, 'thread id'), requireUuid(id, 'message id')]
      return repo.findMessage(forUser(userId), userId, thread, uuid)
    },

    /** @throws not_found */
    async getMessage(scope: Scope, threadId: string, id: string): Promise<Message> {
      return requireMessage(userOf(scope), requireUuid(threadId, 'thread id'), requireUuid(id, 'message id'))
    },

    /** Merges meta (a field that is null is removed); the rest of a message never changes. @throws not_found */
    async update(scope: Scope, threadId: string, id: string, input: MessagePatch): Promise<Message> {
      const userId = userOf(scope)
      const thread = requireUuid(threadId, 'thread id')
      const uuid = requireUuid(id, 'message id')
      const { meta } = parseInput(MessagePatch, input, 'patch')
      const message = await repo.patchMeta(forUser(userId), userId, thread, uuid, meta)
      if (message === undefined) throw messageNotFound(id)
      return message
    },

    /**
     * Removes a message; those that followed it follow its parent now. Its seq is not used again.
     * False when there was none, which is no error.
     */
    async delete(scope: Scope, threadId: string, id: string): Promise<boolean> {
      const userId = userOf(scope)
      const thread = requireUuid(threadId, 'thread id')
      const uuid = requireUuid(id, 'message id')
      return forUser(userId)
        .transaction()
        .execute(async (tx) => {
          if (!(await repo.lockThread(tx, userId, thread))) return false
          return repo.deleteMessage(tx, userId, thread, uuid)
        })
    },

    /**
     * Removes all messages of a thread, which stays, with its configuration and files. No seq is used again.
     * @returns how many there were; 0 without such a thread, which is no error
     */
    async clear(scope: Scope, threadId: string): Promise<number> {
      const userId = userOf(scope)
      const thread = requireUuid(threadId, 'thread id')
      return forUser(userId)
        .transaction()
        .execute(async (tx) => {
          if (!(await repo.lockThread(tx, userId, thread))) return 0
          return repo.deleteMessages(tx, userId, thread)
        })
    },

    /** Appends of all users that wait for a statement of this process, and append statements under way. */
    queueStats(): QueueStats {
      return enqueue.stats()
    },
  }

  async function listPath(userId: string, thread: string, leaf: string, range: repo.MessageRange) {
    const seq = await repo.findSeq(forUser(userId), userId, thread, leaf)
    if (seq === undefined) throw messageNotFound(leaf)
    return openPath(userId, thread, seq, `${leaf.toLowerCase()} ${userId}`).page(range)
  }

  async function requireMessage(userId: string, thread: string, id: string): Promise<Message> {
    const message = await repo.findMessage(forUser(userId), userId, thread, id)
    if (message === undefined) throw messageNotFound(id)
    return message
  }
}

function messageNotFound(id: string): ThreadbaseError {
  return new ThreadbaseError('not_found', `message ${id} does not exist in this thread`, { messageId: id })
}

function readRange(query: MessageQuery): repo.MessageRange {
  const range = {
    before: query.before,
    after: query.after,
    order: query.order ?? (query.before !== undefined && query.after === undefined ? 'desc' : 'asc'),
    limit: query.limit ?? 50,
  } as const
  if (query.cursor === undefined) return range
  const [order, seq] = decodeCursor(CURSOR, ['string', 'number'], query.cursor)
  if ((order !== 'asc' && order !== 'desc') || seq < 0) throw badCursor()
  if (order === 'asc') return { ...range, order, after: Math.max(seq, range.after ?? 0) }
  return { ...range, order, before: Math.min(seq, range.before ?? seq) }
}

function toAppended(prepared: Prepared[], outcomes: repo.AppendOutcome[]): Appended[] {
  requireAccepted(prepared, outcomes)
  return prepared.map((item, i) => {
    const outcome = outcomes[i] as repo.AppendOutcome
    const { id, seq, parent_id: parentId, meta, created_at: createdAt } = outcome
    const message = toStored(item, { id, seq, parentId, meta, createdAt })
    return { message, created: outcome.status === 'new' }
  })
}
