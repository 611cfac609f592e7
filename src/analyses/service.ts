import { ThreadbaseError } from '../core/errors.ts'
import { requireUuid } from '../core/ids.ts'
import { readInstant } from '../core/instants.ts'
import { canonicalJson, encodeJsonb } from '../core/json.ts'
import { badCursor, decodeCursor, encodeCursor, type Page, toPage } from '../core/pages.ts'
import { type Scope, userOf } from '../core/scope.ts'
import { parseInput } from '../core/validate.ts'
import type { Database } from '../db/database.ts'
import { isRepeated, requireIfVersion, requireVersion } from './conditions.ts'
import * as repo from './repo.ts'
import {
  type Analysis,
  type AnalysisContent,
  AnalysisPatch,
  type AnalysisVersion,
  EMPTY_ANALYSIS,
  type IfVersion,
  MAX_ANALYSIS,
  MAX_VERSION,
  NewAnalysis,
  SESSION_TYPE,
  type StoredVersion,
  VersionQuery,
  type WriteOptions,
} from './schema.ts'
import { sessionNotFound } from './sessions/service.ts'

export { createSessionService, type SessionService } from './sessions/service.ts'

export type AnalysisService = ReturnType<typeof createAnalysisService>

export type AnalysisOptions = {
  /** Told of each version when it is there for all to see. */
  onWrite?: () => void
}

const CURSOR = 'analysis-versions'

/**
 * What sessions came to: one analysis per session, in versions. A write says which version it replaces, so that two
 * writers cannot overwrite each other without knowing; what was replaced is kept.
 */
export function createAnalysisService(
  { forUser }: Pick<Database, 'forUser'>,
  { onWrite = () => {} }: AnalysisOptions = {},
) {
  /** Why something of the session is not there: perhaps it is no session. */
  async function requireSession(userId: string, id: string): Promise<void> {
    const kind = await repo.findKind(forUser(userId), userId, id)
    if (kind !== SESSION_TYPE) throw sessionNotFound(id, kind)
  }

  /** Undefined while the session has none. @throws not_found without such a session */
  async function findAnalysis(scope: Scope, sessionId: string): Promise<Analysis | undefined> {
    const userId = userOf(scope)
    const id = requireUuid(sessionId, 'session id')
    const analysis = await repo.findAnalysis(forUser(userId), userId, id)
    if (analysis === undefined) await requireSession(userId, id)
    return analysis
  }

  /** Writes what `change` makes of the analysis that is there, if that is the one that the caller means. */
  async function write(
    scope: Scope,
    sessionId: string,
    ifVersion: IfVersion | undefined,
    change: (current: Analysis | undefined) => AnalysisContent,
  ): Promise<{ analysis: Analysis; created: boolean }> {
    const userId = userOf(scope)
    const id = requireUuid(sessionId, 'session id')
    requireIfVersion(ifVersion)
    const { isNew, ...written } = await forUser(userId)
      .transaction()
      .execute(async (tx) => {
        const kind = await repo.lockThread(tx, userId, id)
        if (kind !== SESSION_TYPE) throw sessionNotFound(id, kind)
        const current = await repo.findAnalysis(tx, userId, id)
        const content = change(current)
        if (current !== undefined && isSame(current, content) && isRepeated(ifVersion, current.version))
          return { analysis: current, created: false, isNew: false }
        requireVersion(id, current?.version, ifVersion)
        if (current === undefined)
          return { analysis: await repo.insertAnalysis(tx, userId, id, content), created: true, isNew: true }
        return {
          analysis: await repo.replaceAnalysis(tx, userId, current, content),
          created: false,
          isNew: true,
        }
      })
    if (isNew) onWrite()
    return written
  }

  /** The analysis, and whether this call made the first one. See {@link put}. */
  async function createOrReplace(
    scope: Scope,
    sessionId: string,
    input: NewAnalysis,
    { ifVersion }: WriteOptions = {},
  ): Promise<{ analysis: Analysis; created: boolean }> {
    const content = {
      ...EMPTY_ANALYSIS,
      ...givenIn(parseInput(NewAnalysis, input, 'analysis') as NewAnalysis),
    }
    requireStorable(content)
    return write(scope, sessionId, ifVersion, () => content)
  }

  return {
    findAnalysis,
    createOrReplace,

    /** @throws not_found without such a session, or while it has none */
    async getAnalysis(scope: Scope, sessionId: string): Promise<Analysis> {
      const analysis = await findAnalysis(scope, sessionId)
      if (analysis === undefined) throw noAnalysis(sessionId)
      return analysis
    },

    /**
     * Makes the analysis, or the next version of it; what is left out is empty. A put that finds its own content
     * stored changes nothing, so that it can be repeated when its answer was lost.
     * @throws conflict when there is one and `ifVersion` is not given, or another one than `ifVersion` says
     *   (`details.version`; null for none); not_found without such a session; too_large beyond 1,000,000 characters of
     *   JSON
     */
    async put(
      scope: Scope,
      sessionId: string,
      analysis: NewAnalysis,
      options: WriteOptions = {},
    ): Promise<Analysis> {
      return (await createOrReplace(scope, sessionId, analysis, options)).analysis
    },

    /**
     * Makes the next version from the one that is there: fields that are given replace those of it, lists as a whole;
     * one that is null is emptied. A patch that changes nothing makes no version.
     * @throws not_found without an analysis; conflict and too_large as {@link put}
     */
    async patch(
      scope: Scope,
      sessionId: string,
      input: AnalysisPatch,
      { ifVersion }: WriteOptions = {},
    ): Promise<Analysis> {
      const patch = givenIn(parseInput(AnalysisPatch, input, 'analysis') as AnalysisPatch)
      const { analysis } = await write(scope, sessionId, ifVersion, (current) => {
        if (current === undefined) throw noAnalysis(sessionId)
        const content = { ...contentOf(current), ...patch }
        requireStorable(content)
        return content
      })
      return analysis
    },

    /**
     * Removes the analysis with its earlier versions. One that is made after that has the next number. False when there
     * was none, which is no error.
     * @throws conflict when `ifVersion` says another one than there is
     */
    async delete(scope: Scope, sessionId: string, { ifVersion }: WriteOptions = {}): Promise<boolean> {
      const userId = userOf(scope)
      const id = requireUuid(sessionId, 'session id')
      requireIfVersion(ifVersion)
      return forUser(userId)
        .transaction()
        .execute(async (tx) => {
          await repo.lockThread(tx, userId, id)
          const current = await repo.findAnalysis(tx, userId, id)
          if (current === undefined) return false
          requireVersion(id, current.version, ifVersion ?? '*')
          await repo.deleteAnalysis(tx, userId, current)
          return true
        })
    },

    /**
     * When each version was written, newest first, the one in force among them. Pages by keyset: 50 a page, 100 at most.
     * @throws not_found without such a session
     */
    async listVersions(
      scope: Scope,
      sessionId: string,
      input: VersionQuery = {},
    ): Promise<Page<AnalysisVersion>> {
      const userId = userOf(scope)
      const id = requireUuid(sessionId, 'session id')
      const { limit = 50, cursor } = parseInput(VersionQuery, input, 'query')
      const before = cursor === undefined ? undefined : readCursor(cursor)
      const rows = await repo.listVersions(forUser(userId), userId, id, { limit: limit + 1, before })
      if (rows.length === 0) await requireSession(userId, id)
      return toPage(rows, limit, ({ version }) => encodeCursor(CURSOR, [version]))
    },

    /** A version, the one in force too. Putting its `analysis` again restores it. @throws not_found */
    async getVersion(scope: Scope, sessionId: string, version: number): Promise<StoredVersion> {
      const userId = userOf(scope)
      const id = requireUuid(sessionId, 'session id')
      requireIfVersion(version)
      // in this order: one that is replaced in between is found among the earlier ones
      const current = await findAnalysis(scope, id)
      if (current?.version === version) return toStored(current)
      const earlier = await repo.findEarlier(forUser(userId), userId, id, version)
      if (earlier !== undefined) return earlier
      throw new ThreadbaseError('not_found', `the analysis of session ${id} has no version ${version}`, {
        sessionId: id,
        version,
      })
    },
  }
}

function contentOf(analysis: Analysis): AnalysisContent {
  const { sessionId: _, version: __, createdAt: ___, updatedAt: ____, ...content } = analysis
  return content
}

function toStored(analysis: Analysis): StoredVersion {
  const { sessionId, version, updatedAt } = analysis
  return { sessionId, version, writtenAt: updatedAt, replacedAt: null, analysis: contentOf(analysis) }
}

/** The fields that are given; null is what an empty one has. */
function givenIn(fields: NewAnalysis): Partial<AnalysisContent> {
  for (const [i, { at }] of (fields.chainLinks ?? []).entries())
    if (at != null) readInstant(at, `chain_links.${i}.at`)
  const given = Object.entries(fields).filter(([, value]) => value !== undefined)
  return Object.fromEntries(
    given.map(([name, value]) => [name, value ?? EMPTY_ANALYSIS[name as keyof AnalysisContent]]),
  )
}

/** Also as an earlier version, which is one JSON value. */
function requireStorable(content: AnalysisContent): void {
  const length = encodeJsonb(content).length
  if (length <= MAX_ANALYSIS) return
  const facts = { characters: length, limit: MAX_ANALYSIS }
  throw new ThreadbaseError(
    'too_large',
    `the analysis has ${length} characters of JSON, more than ${MAX_ANALYSIS}`,
    facts,
  )
}

const isSame = (current: Analysis, content: AnalysisContent) =>
  canonicalJson(contentOf(current)) === canonicalJson(content)

function noAnalysis(sessionId: string): ThreadbaseError {
  return new ThreadbaseError('not_found', `session ${sessionId} has no analysis`, { sessionId })
}

function readCursor(cursor: string): number {
  const [version] = decodeCursor(CURSOR, ['number'], cursor)
  if (version < 1 || version > MAX_VERSION) throw badCursor()
  return version
}
