import { dataErased, isThreadbaseError, ThreadbaseError } from '../core/errors.ts'
import { isUuid, newId, requireUuid } from '../core/ids.ts'
import { digestJson } from '../core/json.ts'
import { badCursor, decodeCursor, encodeCursor, type Page, toPage } from '../core/pages.ts'
import { type Scope, userOf } from '../core/scope.ts'
import { parseInput } from '../core/validate.ts'
import type { Database } from '../db/database.ts'
import type { Db } from '../db/schema.ts'
import * as repo from './repo.ts'
import { ForkOptions, NewThread, type Thread, ThreadPatch, ThreadQuery } from './schema.ts'

export type ThreadService = ReturnType<typeof createThreadService>

export type BulkThread = repo.BulkThread
/** `exists` says that nothing was changed. */
export type BulkOutcome = 'created' | 'exists' | ThreadbaseError

const CURSOR = 'threads'
// PostgreSQL has none before 4713 BC
const FIRST_TIME = new Date(Date.UTC(-4712, 0, 1))

/**
 * Threads of a user. Every function takes the scope first; a thread of another user is `not_found`, like one that
 * does not exist.
 */
export function createThreadService({ forUser }: Pick<Database, 'forUser'>) {
  const found = (thread: Thread | undefined, id: string): Thread => {
    if (thread === undefined) throw threadNotFound(id)
    return thread
  }

  /** The thread, and whether this call made it. See {@link create}. */
  async function createOrFind(
    scope: Scope,
    input: NewThread = {},
  ): Promise<{ thread: Thread; created: boolean }> {
    const userId = userOf(scope)
    const body = parseInput(NewThread, input, 'thread') as NewThread
    const id = body.id?.toLowerCase() ?? newId()
    const { id: _, ...rest } = body
    const digest = body.id === undefined ? null : digestJson(rest)
    const made = await repo.insertThread(forUser(userId), userId, { ...rest, id }, digest)
    if (made !== undefined) return { thread: made, created: true }
    const [thread, known] = await Promise.all([
      repo.findThread(forUser(userId), userId, id),
      repo.findThreadDigest(forUser(userId), userId, id),
    ])
    if (thread === undefined)
      throw new ThreadbaseError('conflict', `thread ${id} was deleted at the same moment`, { threadId: id })
    if (known !== digest) {
      throw new ThreadbaseError('conflict', `thread ${id} exists and was made from another body`, {
        threadId: id,
      })
    }
    return { thread, created: false }
  }

  /** Undefined when the user has no such thread. @throws invalid_input for an id that is not a UUID. */
  async function findThread(scope: Scope, id: string): Promise<Thread | undefined> {
    const userId = userOf(scope)
    return repo.findThread(forUser(userId), userId, requireUuid(id, 'thread id'))
  }

  async function mark(
    scope: Scope,
    id: string,
    name: 'archived_at' | 'ended_at',
    on: boolean,
  ): Promise<Thread> {
    const userId = userOf(scope)
    const uuid = requireUuid(id, 'thread id')
    return found(await repo.markThread(forUser(userId), userId, uuid, name, on), id)
  }

  /** Tries the threads together and, when one of them is refused, each alone. */
  async function insertEach(userId: string, threads: repo.BulkThread[]): Promise<BulkOutcome[]> {
    try {
      const made = new Set(await repo.insertThreads(forUser(userId), userId, threads))
      return threads.map(({ id }) => (made.has(id) ? 'created' : 'exists'))
    } catch (error) {
      if (!isThreadbaseError(error, 'invalid_input')) throw error
      if (threads.length === 1) return [error]
      const outcomes: BulkOutcome[] = []
      for (const thread of threads) outcomes.push(...(await insertEach(userId, [thread])))
      return outcomes
    }
  }

  return {
    createOrFind,
    findThread,

    /**
     * Makes many threads, for imports: in one statement, with ids and, if given, times of the caller's own. A thread
     * that exists is left as it is.
     * @returns one outcome a thread, in order; an error is that of one thread alone, whose values cannot be stored
     */
    async createMany(scope: Scope, threads: BulkThread[]): Promise<BulkOutcome[]> {
      const userId = userOf(scope)
      const rows = threads.map((thread) => ({ ...thread, id: requireUuid(thread.id, 'thread id') }))
      return rows.length === 0 ? [] : insertEach(userId, rows)
    },

    /** Those of the threads that the user has, by id. */
    async findMany(scope: Scope, ids: string[]): Promise<Map<string, Thread>> {
      const userId = userOf(scope)
      const uuids = ids.map((id) => requireUuid(id, 'thread id'))
      const threads = uuids.length === 0 ? [] : await repo.findThreads(forUser(userId), userId, uuids)
      return new Map(threads.map((thread) => [thread.id, thread]))
    },

    /**
     * Makes a thread. With an id of your own the call can be repeated: the same id with the same body is the same
     * thread, as it is now.
     * @throws conflict when the id exists and was made from another body
     */
    async create(scope: Scope, input: NewThread = {}): Promise<Thread> {
      return (await createOrFind(scope, input)).thread
    },

    /** @throws not_found */
    async getThread(scope: Scope, id: string): Promise<Thread> {
      return found(await findThread(scope, id), id)
    },

    /** Newest update first, archived ones left out unless asked for. Pages by keyset: 50 a page, 100 at most. */
    async list(scope: Scope, input: ThreadQuery = {}): Promise<Page<Thread>> {
      const userId = userOf(scope)
      const query = parseInput(ThreadQuery, input, 'query') as ThreadQuery
      const limit = query.limit ?? 50
      const after = query.cursor === undefined ? undefined : readCursor(query.cursor)
      const rows = await repo.listThreads(forUser(userId), userId, { ...query, limit: limit + 1, after })
      return toPage(rows, limit, (last) => encodeCursor(CURSOR, [last.updatedAt.getTime(), last.id]))
    },

    /** Sets the title, merges meta (a field that is null is removed). @throws not_found */
    async update(scope: Scope, id: string, input: ThreadPatch): Promise<Thread> {
      const userId = userOf(scope)
      const uuid = requireUuid(id, 'thread id')
      const patch = parseInput(ThreadPatch, input, 'patch')
      return found(await repo.updateThread(forUser(userId), userId, uuid, patch), id)
    },

    /** Hides the thread from lists; nothing is lost. Again: no change. @throws not_found */
    archive: (scope: Scope, id: string) => mark(scope, id, 'archived_at', true),

    /** @throws not_found */
    unarchive: (scope: Scope, id: string) => mark(scope, id, 'archived_at', false),

    /** Notes when the session ended. Appends stay possible, so that a late answer is not lost. @throws not_found */
    end: (scope: Scope, id: string) => mark(scope, id, 'ended_at', true),

    /** Removes the thread and everything in it. False when there was none, which is no error. */
    async delete(scope: Scope, id: string): Promise<boolean> {
      const userId = userOf(scope)
      const uuid = requireUuid(id, 'thread id')
      return forUser(userId)
        .transaction()
        .execute(async (tx) => {
          await repo.lockThreadAndForks(tx, userId, uuid)
          return repo.deleteThread(tx, userId, uuid)
        })
    },

    /**
     * A new thread with the messages up to seq `at` (all by default) and the same configuration, copied inside the
     * database. @throws not_found; invalid_input when the thread has not reached `at`
     */
    async fork(scope: Scope, id: string, input: ForkOptions = {}): Promise<Thread> {
      const userId = userOf(scope)
      const uuid = requireUuid(id, 'thread id')
      const { at } = parseInput(ForkOptions, input, 'fork')
      const fork = await repo.forkThread(forUser(userId), userId, uuid, newId(), at)
      if (fork !== undefined) return fork
      const { lastSeq } = found(await repo.findThread(forUser(userId), userId, uuid), id)
      throw new ThreadbaseError('invalid_input', `at is ${at}, but the thread's last seq is ${lastSeq}`, {
        at,
        lastSeq,
      })
    },
  }
}

/**
 * Why a thread that something is to be stored in is not there: the data of its user may have been erased.
 * @param db a handle of the user
 */
export async function whyMissing(db: Db, userId: string, error: unknown): Promise<unknown> {
  if (!isThreadbaseError(error, 'not_found') || error.details?.threadId === undefined) return error
  return (await repo.isErased(db, userId)) ? dataErased({ cause: error }) : error
}

export function threadNotFound(id: string): ThreadbaseError {
  return new ThreadbaseError('not_found', `thread ${id} does not exist`, { threadId: id })
}

function readCursor(cursor: string): repo.ThreadKey {
  const [time, id] = decodeCursor(CURSOR, ['number', 'string'], cursor)
  const updatedAt = new Date(time)
  if (Number.isNaN(updatedAt.getTime()) || updatedAt < FIRST_TIME || !isUuid(id)) throw badCursor()
  return { updatedAt, id: id.toLowerCase() }
}
