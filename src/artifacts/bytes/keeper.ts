import { buffer } from 'node:stream/consumers'
import { setTimeout as delay } from 'node:timers/promises'
import {
  BEGINNING_BYTES,
  type BlobFacts,
  type Blobs,
  noBlob,
  type Staged,
  type StageOptions,
} from '../../blobs/blobs.ts'
import { ThreadbaseError } from '../../core/errors.ts'
import { brokenConstraint } from '../../db/errors.ts'
import type { Db } from '../../db/schema.ts'
import { detectType, nameFor } from '../media.ts'
import type { StoredBytes } from '../schema.ts'
import * as repo from './repo.ts'

export type Keeper = ReturnType<typeof createKeeper>

/** Bytes of a caller: at once, or as they come. Text is stored as UTF-8. */
export type ByteSource = Uint8Array | string | AsyncIterable<Uint8Array>

/** What a row says of bytes that were taken in. */
export type Named = StoredBytes & { filename: string; meta: Record<string, unknown> }
type Claims = { filename?: string; mime?: string; meta?: Record<string, unknown> }

const WAIT_MS = 50
const MAX_WAIT_MS = 20_000

/**
 * Puts bytes into the storage together with the row that names them, so that neither is without the other: the row of
 * `blobs` first, which keeps the collector away, then the bytes, then the name.
 * @param db the privileged handle
 */
export function createKeeper(db: Db, blobs: Blobs) {
  return {
    blobs,

    /** @throws as {@link Blobs.stage} */
    stage: (source: ByteSource, options: StageOptions): Promise<Staged> =>
      blobs.stage(toSource(source), options),

    /** Bytes that are in their place already, for who has shown to have them. @throws not_found */
    async stageStored({ sha256, size }: BlobFacts): Promise<Staged> {
      const discard = async () => {}
      return {
        ...{ sha256, size, discard, [Symbol.asyncDispose]: discard },
        beginning: await buffer(await blobs.read(sha256, size === 0 ? {} : { end: BEGINNING_BYTES - 1 })),
        commit: async () => {
          if ((await blobs.find(sha256))?.size !== size) throw noBlob(sha256)
          return { existed: true }
        },
      }
    },

    /**
     * Stores what is staged; `insert` makes the row that names it. Nothing stays when one of them fails, but for bytes
     * that the next collection removes.
     */
    async keep<T>(staged: Staged, claims: Claims, insert: (named: Named) => Promise<T>): Promise<T> {
      await using bytes = staged
      const mime = await detectType(bytes.beginning, claims)
      await touchBlob(bytes)
      await bytes.commit()
      const { sha256, size } = bytes
      const meta = { ...claims.meta, ...placeOf(blobs, sha256) }
      try {
        return await insert({ sha256, size, mime, filename: claims.filename ?? nameFor(mime), meta })
      } catch (error) {
        if (brokenConstraint(error)?.endsWith('_bytes') !== true) throw error
        const message =
          'the bytes were collected before they had a name: try again, with a longer grace period'
        throw new ThreadbaseError('unavailable', message, { sha256 }, { cause: error })
      }
    },
  }

  /** Once this has returned, what is put stays put for the collector's grace period. @throws unavailable */
  async function touchBlob(facts: BlobFacts): Promise<void> {
    const { sha256 } = facts
    for (const started = performance.now(); await repo.touchBlob(db, facts); ) {
      if (performance.now() - started > MAX_WAIT_MS)
        throw new ThreadbaseError('unavailable', 'the same bytes are being removed: try again in a minute', {
          sha256,
        })
      await delay(WAIT_MS)
    }
  }
}

/** Where the bytes are in S3, as the seed's `meta` says it. */
function placeOf(blobs: Blobs, sha256: string): Record<string, string> {
  const { key, url } = blobs.locate(sha256)
  return url === undefined ? {} : { s3_key: key, s3_url: url }
}

/** @throws invalid_input when the bytes are not what was announced; what came before them was checked on the way */
export function requireAnnounced(found: BlobFacts, announced: { sha256?: string; size?: number }): void {
  for (const name of ['size', 'sha256'] as const) {
    if (announced[name] === undefined || announced[name] === found[name]) continue
    const message = `${name} of the bytes is ${found[name]}, not ${announced[name]} as announced`
    throw new ThreadbaseError('invalid_input', message, {
      field: name,
      announced: announced[name],
      found: found[name],
    })
  }
}

function toSource(source: ByteSource): AsyncIterable<Uint8Array> {
  if (typeof source === 'string') return one(Buffer.from(source))
  if (source instanceof Uint8Array) return one(source)
  if (typeof source?.[Symbol.asyncIterator] === 'function') return source
  throw new ThreadbaseError('invalid_input', 'the bytes must be a Uint8Array, a text or a stream of bytes')
}

async function* one(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield bytes
}
