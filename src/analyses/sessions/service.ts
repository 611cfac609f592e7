import { ThreadbaseError } from '../../core/errors.ts'
import { isUuid, requireUuid } from '../../core/ids.ts'
import { badCursor, decodeCursor, encodeCursor, type Page, toPage } from '../../core/pages.ts'
import { type Scope, userOf } from '../../core/scope.ts'
import { parseInput } from '../../core/validate.ts'
import type { Database } from '../../db/database.ts'
import type { Thread } from '../../threads/schema.ts'
import type { ThreadService } from '../../threads/service.ts'
import { NewSession, SESSION_TYPE, type Session, SessionQuery } from '../schema.ts'
import * as repo from './repo.ts'

export type SessionService = ReturnType<typeof createSessionService>

const CURSOR = 'sessions'
// PostgreSQL has none before 4713 BC
const FIRST_TIME = new Date(Date.UTC(-4712, 0, 1))

/**
 * Sessions of a user: threads of kind `chain_analysis`. What else is done to a session, to its title or its messages, is
 * done to its thread, under the same id. A thread of another kind is no session, and `not_found`.
 */
export function createSessionService(
  { forUser }: Pick<Database, 'forUser'>,
  threads: Pick<ThreadService, 'createOrFind' | 'findThread' | 'end'>,
) {
  /** Undefined when the user has no such session. @throws invalid_input for an id that is not a UUID */
  async function findSession(scope: Scope, id: string): Promise<Session | undefined> {
    const userId = userOf(scope)
    return repo.findSession(forUser(userId), userId, requireUuid(id, 'session id'))
  }

  /** @throws not_found */
  async function getSession(scope: Scope, id: string): Promise<Session> {
    const session = await findSession(scope, id)
    if (session !== undefined) return session
    throw sessionNotFound(id, (await threads.findThread(scope, id))?.kind)
  }

  /** The session, and whether this call made it. See {@link create}. */
  async function createOrFind(
    scope: Scope,
    input: NewSession = {},
  ): Promise<{ session: Session; created: boolean }> {
    const { type: _, ...fields } = parseInput(NewSession, input, 'session') as NewSession
    const { thread, created } = await threads.createOrFind(scope, { ...fields, kind: SESSION_TYPE })
    return { session: created ? newSession(thread) : await getSession(scope, thread.id), created }
  }

  return {
    findSession,
    getSession,
    createOrFind,

    /**
     * Makes a session. With an id of your own the call can be repeated: the same id with the same body is the same
     * session, as it is now.
     * @throws conflict when the id exists and was made from another body
     */
    async create(scope: Scope, input: NewSession = {}): Promise<Session> {
      return (await createOrFind(scope, input)).session
    },

    /** Newest start first, archived ones left out unless asked for. Pages by keyset: 50 a page, 100 at most. */
    async list(scope: Scope, input: SessionQuery = {}): Promise<Page<Session>> {
      const userId = userOf(scope)
      const query = parseInput(SessionQuery, input, 'query')
      const limit = query.limit ?? 50
      const after = query.cursor === undefined ? undefined : readCursor(query.cursor)
      const rows = await repo.listSessions(forUser(userId), userId, { ...query, limit: limit + 1, after })
      return toPage(rows, limit, (last) => encodeCursor(CURSOR, [last.startedAt.getTime(), last.id]))
    },

    /** Notes when the session ended; again: no change. Messages and analysis can still be written. @throws not_found */
    async end(scope: Scope, id: string): Promise<Session> {
      const session = await getSession(scope, id)
      const { endedAt } = await threads.end(scope, id)
      return { ...session, endedAt }
    },
  }
}

/** @param kind of the user's thread of this id, if there is one */
export function sessionNotFound(id: string, kind?: string): ThreadbaseError {
  const message =
    kind === undefined || kind === SESSION_TYPE
      ? `session ${id} does not exist`
      : `thread ${id} is no session: it is of kind ${kind}, not ${SESSION_TYPE}`
  return new ThreadbaseError('not_found', message, { sessionId: id })
}

function newSession(thread: Thread): Session {
  const { id, userId, title, meta, lastSeq, createdAt, endedAt, archivedAt } = thread
  const times = { startedAt: createdAt, endedAt, archivedAt }
  return { id, userId, type: SESSION_TYPE, title, meta, lastSeq, ...times, analysisVersion: null }
}

function readCursor(cursor: string): repo.SessionKey {
  const [time, id] = decodeCursor(CURSOR, ['number', 'string'], cursor)
  const startedAt = new Date(time)
  if (Number.isNaN(startedAt.getTime()) || startedAt < FIRST_TIME || !isUuid(id)) throw badCursor()
  return { startedAt, id: id.toLowerCase() }
}
