import type { Staged } from '../../blobs/blobs.ts'
import { isThreadbaseError, ThreadbaseError } from '../../core/errors.ts'
import { newId, requireUuid } from '../../core/ids.ts'
import type { Database } from '../../db/database.ts'
import type { Keeper, Named } from '../bytes/keeper.ts'
import type { PendingUpload } from '../schema.ts'
import * as repo from './repo.ts'

export type Uploads = ReturnType<typeof createUploads>

type Announced = { sha256: string; size: number; expiresInS?: number }
type Owner = { userId: string; threadId: string | null }

/** How an upload becomes what it was announced for. */
type Completion<T> = {
  /** What has the upload's id already; undefined when nothing has. */
  find(id: string): Promise<T | undefined>
  /** Undefined when something has the id already. */
  insert(id: string, entry: Record<string, unknown>, named: Named): Promise<T | undefined>
}

const HOUR_S = 3_600

/** Uploads that clients make by themselves, past this process where the storage allows it. */
export function createUploads(
  { forUser }: Pick<Database, 'forUser'>,
  keeper: Keeper,
  { maxBytes }: { maxBytes: number },
) {
  return {
    /** @throws too_large */
    async start(
      { userId, threadId }: Owner,
      { sha256, size, expiresInS = HOUR_S, ...entry }: Announced & Record<string, unknown>,
    ): Promise<PendingUpload> {
      if (size > maxBytes) throw new ThreadbaseError('too_large', `more than ${maxBytes} bytes`, { maxBytes })
      const put = await keeper.blobs.presignPut({ sha256, size }, { expiresInS })
      const expiresAt = new Date(Date.now() + expiresInS * 1_000)
      const id = newId()
      const upload = { id, threadId, objectKey: put.key, sha256, size, entry, expiresAt }
      await repo.insertUpload(forUser(userId), userId, upload)
      return { token: id, url: put.url, method: put.method, headers: put.headers, expiresAt }
    },

    /**
     * Again: the same row, `created: false`.
     * @throws not_found for a token that is not one of the owner's; conflict while nothing was uploaded; invalid_input when
     *   it is not what was promised
     */
    async complete<T>(
      { userId, threadId }: Owner,
      token: string,
      { find, insert }: Completion<T>,
    ): Promise<{ row: T; created: boolean }> {
      const id = requireUuid(token, 'token')
      const upload = await repo.findUpload(forUser(userId), userId, threadId, id)
      if (upload === undefined) {
        const row = await find(id)
        if (row !== undefined) return { row, created: false }
        throw new ThreadbaseError('not_found', `upload ${id} does not exist`, { token: id })
      }
      const { entry } = upload
      try {
        const staged = await stageUpload(userId, upload)
        const made = await keeper.keep(staged, entry, (named) => insert(id, entry, named))
        if (made !== undefined) return { row: made, created: true }
      } catch (error) {
        // of the object, not of the thread
        if (!isThreadbaseError(error, 'not_found') || error.details?.threadId !== undefined) throw error
        // perhaps another call completes it at this moment
        const row = await find(id)
        if (row !== undefined) return { row, created: false }
        throw notThere(id, error)
      }
      const row = await find(id)
      if (row === undefined)
        throw new ThreadbaseError('not_found', `upload ${id} was deleted meanwhile`, { token: id })
      return { row, created: false }
    },
  }

  /** @throws not_found while nothing was uploaded */
  async function stageUpload(
    userId: string,
    { id, objectKey, sha256, size, isProven }: repo.Upload,
  ): Promise<Staged> {
    try {
      const staged = await keeper.blobs.stageObject(objectKey, { sha256, size })
      try {
        await repo.proveUpload(forUser(userId), userId, id)
        return staged
      } catch (error) {
        await staged.discard()
        throw error
      }
    } catch (error) {
      if (!isProven || !isThreadbaseError(error, 'not_found')) throw error
      // an earlier call put them in their place, and failed before they had a name
      return keeper.stageStored({ sha256, size })
    }
  }
}

function notThere(token: string, cause: unknown): ThreadbaseError {
  const message = `nothing was uploaded to the URL of upload ${token} yet`
  return new ThreadbaseError('conflict', message, { token }, { cause })
}
