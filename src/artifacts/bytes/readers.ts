import type { Readable } from 'node:stream'
import type { Blobs, ReadOptions } from '../../blobs/blobs.ts'
import { ThreadbaseError } from '../../core/errors.ts'
import type { Scope } from '../../core/scope.ts'
import { contentTypeOf, dispositionOf } from '../media.ts'
import type { StoredBytes, StoredHead } from '../schema.ts'

const DAY_S = 86_400

export type PresignOptions = {
  /** Seconds that the URL is good for, 7 days at most. Default: 24 hours. */
  expiresInS?: number
  /** Whether browsers save it even where they could show it. Default false. */
  download?: boolean
}

/** How the bytes of a row are read, whichever table it is in. `get` throws not_found for rows of others. */
export function readersOf<T extends StoredBytes & { id: string }>(
  blobs: Blobs,
  get: (scope: Scope, id: string) => Promise<T>,
  nameOf: (row: T) => string,
) {
  return {
    /** What the storage has for it. @throws not_found for a row that is not there; missing bytes are `exists: false` */
    async head(scope: Scope, id: string): Promise<StoredHead> {
      const { id: found, sha256, size, mime } = await get(scope, id)
      const stored = await blobs.find(sha256)
      return {
        id: found,
        sha256,
        size,
        mime,
        exists: stored?.size === size,
        storedAt: stored?.modifiedAt ?? null,
      }
    },

    /**
     * A URL that gives the bytes to whoever has it: S3's own, or a path of this server.
     * @throws not_found; invalid_input for more than 7 days
     */
    async presign(scope: Scope, id: string, options: PresignOptions = {}): Promise<string> {
      const row = await get(scope, id)
      const { expiresInS = DAY_S, download } = options
      if (!Number.isInteger(expiresInS) || expiresInS < 1 || expiresInS > 7 * DAY_S)
        throw new ThreadbaseError('invalid_input', `expiresInS must be 1 to ${7 * DAY_S}`, {
          field: 'expiresInS',
        })
      return blobs.presignGet(row.sha256, {
        contentType: contentTypeOf(row.mime),
        contentDisposition: dispositionOf(row.mime, nameOf(row), { download }),
        expiresInS,
      })
    },

    /**
     * The bytes as a stream, or those from `start` to `end`, both included, counted from 0.
     * @throws not_found; with `verify` the stream fails at its end when the bytes are not what they were
     */
    async read(scope: Scope, id: string, options: ReadOptions = {}): Promise<Readable> {
      return blobs.read((await get(scope, id)).sha256, options)
    },
  }
}

export type Readers = ReturnType<typeof readersOf>
