import { ThreadbaseError } from '../../core/errors.ts'
import { newId, requireUuid } from '../../core/ids.ts'
import { decodeIdCursor, encodeCursor, type Page, toPage } from '../../core/pages.ts'
import { type Scope, userOf } from '../../core/scope.ts'
import { parseInput } from '../../core/validate.ts'
import type { Database } from '../../db/database.ts'
import { isSqlState, UNIQUE_VIOLATION } from '../../db/errors.ts'
import { type ByteSource, type Keeper, type Named, requireAnnounced } from '../bytes/keeper.ts'
import { readersOf } from '../bytes/readers.ts'
import {
  FilePatch,
  FileQuery,
  NewFile,
  NewFileUpload,
  type PendingUpload,
  requireShortName,
  type UserFile,
} from '../schema.ts'
import { createUploads } from '../uploads/uploads.ts'
import { numbered } from './names.ts'
import * as repo from './repo.ts'

export type FileService = ReturnType<typeof createFileService>

type FileFields = Pick<NewFile, 'flowId' | 'temporary'>

const CURSOR = 'files'
const TEMPORARY_MS = 24 * 3_600_000
const NAME_ATTEMPTS = 40

/** How far beyond the next number to try: near at first, since others take names, then past names that were given as such. */
function stepOf(attempt: number): number {
  if (attempt <= 2) return attempt
  return attempt <= 20 ? Math.floor(Math.random() * attempt) : 2 ** (attempt - 16)
}

/**
 * Files of a user outside threads. Names are unique among a user's files: a second `a.pdf` is called `a (1).pdf`. The
 * bytes are stored once, by their SHA-256. What has expired is not there any more, for all functions.
 */
export function createFileService(
  { forUser }: Pick<Database, 'forUser'>,
  keeper: Keeper,
  { maxBytes }: { maxBytes: number },
) {
  const uploads = createUploads({ forUser }, keeper, { maxBytes })
  const readers = readersOf(keeper.blobs, getFile, ({ name }) => name)

  /** Undefined when the user has no such file. @throws invalid_input for an id that is not a UUID */
  async function findFile(scope: Scope, id: string): Promise<UserFile | undefined> {
    const userId = userOf(scope)
    return repo.findFile(forUser(userId), userId, requireUuid(id, 'file id'))
  }

  async function getFile(scope: Scope, id: string): Promise<UserFile> {
    const file = await findFile(scope, id)
    if (file === undefined) throw fileNotFound(id)
    return file
  }

  /** Tries the names in their order from the first that seems free, for others may take it meanwhile. */
  async function withFreeName<T>(
    userId: string,
    askedName: string,
    use: (name: repo.FileName) => Promise<T | undefined>,
  ): Promise<T> {
    for (let attempt = 0; attempt < NAME_ATTEMPTS; attempt++) {
      const next = await repo.nextNumber(forUser(userId), userId, askedName)
      const n = next + stepOf(attempt)
      const used = await use({ askedName, n, name: numbered(askedName, n) })
      if (used !== undefined) return used
    }
    throw new ThreadbaseError('conflict', 'too many files of this name are made at the same time: try again')
  }

  async function insertNew(userId: string, named: Named, { flowId = null, temporary }: FileFields) {
    const { filename, ...bytes } = named
    const expiresAt = expiryOf(temporary)
    return withFreeName(userId, filename, (name) =>
      repo.insertFile(forUser(userId), userId, { id: newId(), ...bytes, flowId, expiresAt }, name),
    )
  }

  return {
    ...readers,
    findFile,

    /** @throws not_found */
    getFile,

    /**
     * Stores bytes as a file; a stream is never held in memory.
     * @param input its fields, or what gives them when the bytes are in
     * @throws too_large; invalid_input when the bytes are not what was announced; unavailable when the storage does not
     *   answer or is full. Then there is no file, and no bytes stay.
     */
    async create(scope: Scope, source: ByteSource, input: NewFile | (() => NewFile) = {}): Promise<UserFile> {
      const userId = userOf(scope)
      const early = typeof input === 'function' ? undefined : parseNew(input)
      const staged = await keeper.stage(source, { maxBytes, size: early?.size, sha256: early?.sha256 })
      try {
        const fields = early ?? parseNew((input as () => NewFile)())
        requireAnnounced(staged, fields)
        return await keeper.keep(staged, fields, (named) => insertNew(userId, named, fields))
      } finally {
        await staged.discard()
      }
    },

    /** A URL to which a client puts just these bytes by itself; {@link completeUpload} then makes the file. @throws too_large */
    async startUpload(scope: Scope, input: NewFileUpload): Promise<PendingUpload> {
      const userId = userOf(scope)
      const announced = parseInput(NewFileUpload, input, 'upload')
      requireShortName(announced.filename)
      return uploads.start({ userId, threadId: null }, announced)
    },

    /**
     * The file of an upload, once its bytes are there. Again: the same file, `created: false`.
     * @throws not_found for a token that is not the user's; conflict while nothing was uploaded; invalid_input when it is
     *   not what was promised
     */
    async completeUpload(scope: Scope, token: string): Promise<{ file: UserFile; created: boolean }> {
      const userId = userOf(scope)
      const find = (id: string) => repo.findFile(forUser(userId), userId, id)
      const { row, created } = await uploads.complete({ userId, threadId: null }, token, {
        find,
        insert: async (id, { flowId = null, temporary }: FileFields, { filename, ...bytes }) => {
          const { made } = await withFreeName(userId, filename, async (name) => {
            const file = { id, ...bytes, flowId, expiresAt: expiryOf(temporary) }
            const made = await repo.insertFile(forUser(userId), userId, file, name)
            // one that has the id already is the same upload, completed by another call; else it was the name
            return made === undefined && (await find(id)) === undefined ? undefined : { made }
          })
          return made
        },
      })
      return { file: row, created }
    },

    /** The user's files, newest first. Pages by keyset: 50 a page, 200 at most. */
    async list(scope: Scope, input: FileQuery = {}): Promise<Page<UserFile>> {
      const userId = userOf(scope)
      const query = parseInput(FileQuery, input, 'query')
      const limit = query.limit ?? 50
      const before = query.cursor === undefined ? undefined : decodeIdCursor(CURSOR, query.cursor)
      const rows = await repo.listFiles(forUser(userId), userId, { ...query, limit: limit + 1, before })
      return toPage(rows, limit, (last) => encodeCursor(CURSOR, [last.id]))
    },

    /** Changes name, flow or expiry, merges meta (a field that is null is removed). The bytes stay. @throws not_found */
    async update(scope: Scope, id: string, input: FilePatch): Promise<UserFile> {
      const userId = userOf(scope)
      const uuid = requireUuid(id, 'file id')
      const patch = parseInput(FilePatch, input, 'patch')
      requireShortName(patch.name)
      const current = await getFile(scope, uuid)
      const update = (name?: repo.FileName) => repo.updateFile(forUser(userId), userId, uuid, patch, name)
      if (patch.name === undefined || patch.name === current.name) {
        const isEmpty = Object.keys(patch).every((key) => key === 'name')
        return (isEmpty ? current : await update()) ?? raise(fileNotFound(id))
      }
      const renamed = await withFreeName(userId, patch.name, async (name) => {
        try {
          return { file: await update(name) }
        } catch (error) {
          if (isSqlState(error, UNIQUE_VIOLATION)) return undefined
          throw error
        }
      })
      return renamed.file ?? raise(fileNotFound(id))
    },

    /** False when there was none, which is no error. The bytes go with the next collection, unless something else names them. */
    async delete(scope: Scope, id: string): Promise<boolean> {
      const userId = userOf(scope)
      return repo.deleteFile(forUser(userId), userId, requireUuid(id, 'file id'))
    },
  }
}

function expiryOf(temporary: boolean | undefined): Date | null {
  return temporary === true ? new Date(Date.now() + TEMPORARY_MS) : null
}

function parseNew(input: NewFile): NewFile {
  const fields = parseInput(NewFile, input, 'file')
  requireShortName(fields.filename)
  return fields
}

function raise(error: Error): never {
  throw error
}

function fileNotFound(id: string): ThreadbaseError {
  return new ThreadbaseError('not_found', `file ${id} does not exist`, { fileId: id })
}
