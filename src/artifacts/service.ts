import { ThreadbaseError } from '../core/errors.ts'
import { newId, requireUuid } from '../core/ids.ts'
import { decodeIdCursor, encodeCursor, type Page, toPage } from '../core/pages.ts'
import { type Scope, userOf } from '../core/scope.ts'
import { parseInput } from '../core/validate.ts'
import type { Database } from '../db/database.ts'
import { brokenConstraint } from '../db/errors.ts'
import { type ThreadService, threadNotFound, whyMissing } from '../threads/service.ts'
import { type ByteSource, type Keeper, type Named, requireAnnounced } from './bytes/keeper.ts'
import { readersOf } from './bytes/readers.ts'
import { whoNames } from './bytes/repo.ts'
import * as repo from './repo.ts'
import {
  type Artifact,
  ArtifactQuery,
  IngestedObject,
  NewArtifact,
  NewArtifactUpload,
  type PendingUpload,
  requireShortName,
} from './schema.ts'
import { createUploads } from './uploads/uploads.ts'

export { type ByteSource, createKeeper } from './bytes/keeper.ts'
export type { PresignOptions } from './bytes/readers.ts'
export { createFileService, type FileService } from './files/service.ts'
export { type ByteErasure, createByteErasure, type ErasedBytes } from './upkeep/erase/service.ts'
export {
  type BlobProblem,
  type BlobUpkeep,
  type CollectOptions,
  type CollectReport,
  createBlobUpkeep,
  type VerifyOptions,
  type VerifyReport,
} from './upkeep/service.ts'

export type ArtifactService = ReturnType<typeof createArtifactService>

export type ArtifactOptions = {
  /** The largest artifact or file, in bytes. */
  maxBytes: number
}

type Origin = Pick<NewArtifact, 'sessionId' | 'runId' | 'toolCallId'>

const CURSOR = 'artifacts'

/**
 * Files of threads: plots, tables, documents. The bytes are stored once, by their SHA-256, however many artifacts name
 * them. Every function takes the scope first; what belongs to another user is `not_found`.
 */
export function createArtifactService(
  { db, forUser }: Pick<Database, 'db' | 'forUser'>,
  threads: Pick<ThreadService, 'getThread'>,
  keeper: Keeper,
  { maxBytes }: ArtifactOptions,
) {
  const uploads = createUploads({ forUser }, keeper, { maxBytes })
  const readers = readersOf(keeper.blobs, getArtifact, ({ filename }) => filename)

  /** Undefined when the user has no such artifact. @throws invalid_input for an id that is not a UUID */
  async function findArtifact(scope: Scope, id: string): Promise<Artifact | undefined> {
    const userId = userOf(scope)
    return repo.findArtifact(forUser(userId), userId, requireUuid(id, 'artifact id'))
  }

  async function getArtifact(scope: Scope, id: string): Promise<Artifact> {
    const artifact = await findArtifact(scope, id)
    if (artifact === undefined)
      throw new ThreadbaseError('not_found', `artifact ${id} does not exist`, { artifactId: id })
    return artifact
  }

  async function insert(userId: string, threadId: string, id: string, named: Named, origin: Origin) {
    const { sessionId = null, runId = null, toolCallId = null } = origin
    try {
      return await repo.insertArtifact(forUser(userId), userId, {
        ...{ id, threadId, ...named },
        ...{ sessionId, runId, toolCallId },
      })
    } catch (error) {
      if (brokenConstraint(error)?.includes('thread_id') !== true) throw error
      throw await whyMissing(forUser(userId), userId, threadNotFound(threadId))
    }
  }

  async function insertNew(userId: string, threadId: string, named: Named, origin: Origin) {
    const artifact = await insert(userId, threadId, newId(), named, origin)
    if (artifact === undefined) throw new Error('a new id was taken')
    return artifact
  }

  /** The thread that something is to be stored in. */
  async function threadFor(scope: Scope, threadId: string) {
    try {
      return await threads.getThread(scope, threadId)
    } catch (error) {
      throw await whyMissing(forUser(scope.userId), scope.userId, error)
    }
  }

  /** Bytes of others are not to be had by their hash. */
  async function requireOwn(userId: string, key: string): Promise<void> {
    const sha256 = /([0-9a-f]{64})$/.exec(key)?.[1]
    if (sha256 === undefined || keeper.blobs.locate(sha256).key !== key) return
    const named = await whoNames(db, userId, sha256)
    if (named.others && !named.own) throw noObject(key)
  }

  return {
    ...readers,
    findArtifact,

    /** @throws not_found */
    getArtifact,

    /**
     * Stores bytes as an artifact of the thread; a stream is never held in memory. The same bytes twice are two artifacts.
     * @param input its fields, or what gives them when the bytes are in
     * @throws not_found for the thread, before anything is read; too_large; invalid_input when the bytes are not what was
     *   announced; unavailable when the storage does not answer or is full. Then there is no artifact, and no bytes stay.
     */
    async create(
      scope: Scope,
      threadId: string,
      source: ByteSource,
      input: NewArtifact | (() => NewArtifact) = {},
    ): Promise<Artifact> {
      const userId = userOf(scope)
      const early = typeof input === 'function' ? undefined : parseNew(input)
      const { id } = await threadFor(scope, threadId)
      const staged = await keeper.stage(source, { maxBytes, size: early?.size, sha256: early?.sha256 })
      try {
        const fields = early ?? parseNew((input as () => NewArtifact)())
        requireAnnounced(staged, fields)
        return await keeper.keep(staged, fields, (named) => insertNew(userId, id, named, fields))
      } finally {
        await staged.discard()
      }
    },

    /**
     * A URL to which a client puts just these bytes by itself; {@link completeUpload} then makes the artifact.
     * @throws not_found for the thread; too_large
     */
    async startUpload(scope: Scope, threadId: string, input: NewArtifactUpload): Promise<PendingUpload> {
      const userId = userOf(scope)
      const announced = parseInput(NewArtifactUpload, input, 'upload')
      requireShortName(announced.filename)
      const { id } = await threadFor(scope, threadId)
      return uploads.start({ userId, threadId: id }, announced)
    },

    /**
     * The artifact of an upload, once its bytes are there. Again: the same artifact, `created: false`.
     * @throws not_found for a token that is not of this thread; conflict while nothing was uploaded; invalid_input when it
     *   is not what was promised
     */
    async completeUpload(
      scope: Scope,
      threadId: string,
      token: string,
    ): Promise<{ artifact: Artifact; created: boolean }> {
      const userId = userOf(scope)
      const owner = { userId, threadId: requireUuid(threadId, 'thread id') }
      const { row, created } = await uploads.complete(owner, token, {
        find: async (id) => {
          const artifact = await repo.findArtifact(forUser(userId), userId, id)
          return artifact?.threadId === owner.threadId ? artifact : undefined
        },
        insert: (id, entry, named) => insert(userId, owner.threadId, id, named, entry),
      })
      return { artifact: row, created }
    },

    /**
     * Makes the artifact of an object that a sandbox put into the storage. Its bytes are read and hashed.
     * @param options.trusted false: in the place of stored bytes only what the user names already, or nobody
     * @throws not_found for thread or object; invalid_input for a key elsewhere, and when it is not what was announced
     */
    async ingest(
      scope: Scope,
      threadId: string,
      input: IngestedObject,
      { trusted = true }: { trusted?: boolean } = {},
    ): Promise<Artifact> {
      const userId = userOf(scope)
      const { s3Key, ...fields } = parseInput(IngestedObject, input, 'object')
      requireShortName(fields.filename)
      const { id } = await threadFor(scope, threadId)
      if (!trusted) await requireOwn(userId, s3Key)
      const { size, sha256 } = fields
      const staged = await keeper.blobs.stageObject(s3Key, { maxBytes, size, sha256 })
      const filename = fields.filename ?? s3Key.split('/').at(-1)
      return keeper.keep(staged, { ...fields, filename }, (named) => insertNew(userId, id, named, fields))
    },

    /** The artifacts of a thread, newest first. Pages by keyset: 50 a page, 200 at most. @throws not_found for the thread */
    async list(scope: Scope, threadId: string, input: ArtifactQuery = {}): Promise<Page<Artifact>> {
      const userId = userOf(scope)
      const uuid = requireUuid(threadId, 'thread id')
      const query = parseInput(ArtifactQuery, input, 'query')
      const limit = query.limit ?? 50
      const before = query.cursor === undefined ? undefined : decodeIdCursor(CURSOR, query.cursor)
      const rows = await repo.listArtifacts(forUser(userId), userId, uuid, {
        ...query,
        limit: limit + 1,
        before,
      })
      if (rows.length === 0) await threads.getThread(scope, uuid)
      return toPage(rows, limit, (last) => encodeCursor(CURSOR, [last.id]))
    },

    /** False when there was none, which is no error. The bytes go with the next collection, unless something else names them. */
    async delete(scope: Scope, id: string): Promise<boolean> {
      const userId = userOf(scope)
      return repo.deleteArtifact(forUser(userId), userId, requireUuid(id, 'artifact id'))
    },
  }
}

function parseNew(input: NewArtifact): NewArtifact {
  const fields = parseInput(NewArtifact, input, 'artifact')
  requireShortName(fields.filename)
  return fields
}

function noObject(key: string): ThreadbaseError {
  return new ThreadbaseError('not_found', `there is no object ${key}`, { key })
}
