import type { Readable } from 'node:stream'
import { ThreadbaseError } from '../core/errors.ts'

/** 64 lower-case hexadecimal digits. */
export type Sha256 = string

export type BlobFacts = { sha256: Sha256; size: number }
/** `modifiedAt`: when they were stored. Files become young again when they are stored again; objects in S3 cannot. */
export type StoredBlob = BlobFacts & { modifiedAt: Date }

/**
 * The bytes port: bytes under their SHA-256, at `{prefix}output/artifacts/{sha[0:2]}/{sha[2:4]}/{sha}`. Which of them
 * somebody still needs is not its business. Every function throws `unavailable` when the storage does not answer, is
 * full or refuses, and `invalid_input` for what is no SHA-256.
 */
export type Blobs = {
  readonly engine: 'files' | 's3'
  /** What is used, for people; never a credential. */
  readonly description: string
  /**
   * Takes bytes in, in the memory of a few chunks whatever their number. They are not to be found under their hash
   * before `commit`. When the source fails, so does this, and nothing stays.
   * @throws too_large beyond `maxBytes`; invalid_input when they are not as many as `size` says or not of this hash
   */
  stage(source: AsyncIterable<Uint8Array>, options?: StageOptions): Promise<Staged>
  /**
   * The same for an object that somebody else put into the storage, below `{prefix}uploads/` or `{prefix}output/`: its
   * bytes are read and hashed. `commit` removes it only where it was below `uploads/`, and `discard` never.
   * @throws not_found; invalid_input for a key that leads elsewhere
   */
  stageObject(key: string, options?: StageOptions): Promise<Staged>
  /** Undefined when there are none. */
  find(sha256: Sha256): Promise<StoredBlob | undefined>
  /** Where they are or would be: the whole key, and the `s3://` URL where the storage has such. No question to the storage. */
  locate(sha256: Sha256): BlobPlace
  /**
   * The bytes, or those from `start` to `end`, both included: none where there are no more. With `verify` the stream of
   * whole bytes fails at its end when they are not what their name says. A stream that breaks off fails, `unavailable`.
   * @throws not_found; invalid_input for a range that is none
   */
  read(sha256: Sha256, options?: ReadOptions): Promise<Readable>
  /** No change when there are none. */
  remove(sha256: Sha256): Promise<void>
  /** All of them, by hash, beginning after one. */
  list(after?: Sha256): AsyncIterable<StoredBlob>
  /**
   * Removes an object that somebody put to a URL of {@link Blobs.presignPut}, by its key. No change when there is none.
   * @throws invalid_input for a key that leads elsewhere
   */
  removeUpload(key: string): Promise<void>
  /** Removes what was staged longer ago than that and was neither committed nor discarded. @returns how many */
  sweepStaged(olderThanMs: number): Promise<number>
  /** A URL that answers the bytes to whoever has it. Relative where this server is to answer it. */
  presignGet(sha256: Sha256, options: PresignGetOptions): Promise<string>
  /**
   * Where somebody else may put just these bytes; `stageObject(key)` then takes them.
   * @throws too_large for more than the storage takes in one piece
   */
  presignPut(blob: BlobFacts, options: { expiresInS: number }): Promise<PresignedPut>
  /** What answers these URLs where this server is to; undefined where the storage does. */
  readonly local?: LocalUrls
  /** Again: no change. */
  close(): Promise<void>
}

/** URLs that were presigned here, with the query that they came with. All throw `forbidden` when it is altered, foreign or expired. */
export type LocalUrls = {
  checkGet(sha256: string, query: UrlQuery): Promise<{ contentType: string; contentDisposition: string }>
  /** Takes the bytes of a presigned PUT. @throws invalid_input when they are not the promised ones; nothing stays then */
  put(name: string, query: UrlQuery, source: AsyncIterable<Uint8Array>): Promise<void>
}
export type UrlQuery = Record<string, string | undefined>

export type BlobPlace = { key: string; url?: string }
export type StageOptions = { maxBytes?: number; size?: number; sha256?: Sha256 }
export type ReadOptions = { start?: number; end?: number; verify?: boolean }
export type PresignGetOptions = { contentType: string; contentDisposition: string; expiresInS: number }
export type PresignedPut = { url: string; method: 'PUT'; headers: Record<string, string>; key: string }

export type Staged = AsyncDisposable &
  BlobFacts & {
    /** The first bytes, 4,100 at most, which tell a file's type. */
    readonly beginning: Uint8Array
    /**
     * Puts them where their hash says, whole or not at all, and to stay. `existed`: they were there already, which is
     * found out now, whatever was known before.
     */
    commit(): Promise<{ existed: boolean }>
    /** Nothing stays. Again or after `commit`: no change. */
    discard(): Promise<void>
  }

export const BEGINNING_BYTES = 4_100

const SHA256 = /^[0-9a-f]{64}$/

/** @throws invalid_input */
export function requireSha256(sha256: string): Sha256 {
  if (SHA256.test(sha256)) return sha256
  throw new ThreadbaseError('invalid_input', 'a SHA-256 is 64 lower-case hexadecimal digits', {
    field: 'sha256',
  })
}

/** @throws invalid_input */
export function requireRange({ start = 0, end = start }: ReadOptions): void {
  if (Number.isSafeInteger(start) && Number.isSafeInteger(end) && start >= 0 && end >= start) return
  throw new ThreadbaseError('invalid_input', 'a range goes from a byte to the same or a later one', {
    field: 'range',
  })
}

/** The seed's layout: three levels, so that no directory holds too many. */
export function keyOf(sha256: Sha256): string {
  requireSha256(sha256)
  return `output/artifacts/${sha256.slice(0, 2)}/${sha256.slice(2, 4)}/${sha256}`
}

export const UPLOADS = 'uploads/'
const OUTPUT = 'output/'
const MAX_KEY_BYTES = 1_024

/**
 * What `stageObject` may be asked for: whether the key is that of an upload, which goes when its bytes have their place.
 * @throws invalid_input for a key that leads elsewhere
 */
export function requireStageable(key: string, prefix = ''): { isUpload: boolean } {
  const path = key.slice(prefix.length)
  const isUpload = path.startsWith(UPLOADS)
  const isPath =
    key.startsWith(prefix) &&
    (isUpload || path.startsWith(OUTPUT)) &&
    path.split('/').every((part) => !['', '.', '..'].includes(part))
  const isText = key.isWellFormed() && !/\p{Cc}|\\/u.test(key) && Buffer.byteLength(key) <= MAX_KEY_BYTES
  if (isPath && isText) return { isUpload }
  const message = `the key must be one below ${prefix}${UPLOADS} or ${prefix}${OUTPUT}`
  throw new ThreadbaseError('invalid_input', message, { field: 'key' })
}

/** @throws invalid_input for a key that is not that of an upload */
export function requireUpload(key: string, prefix = ''): string {
  if (requireStageable(key, prefix).isUpload) return key
  throw new ThreadbaseError('invalid_input', `the key must be one below ${prefix}${UPLOADS}`, {
    field: 'key',
  })
}

export function noObject(key: string): ThreadbaseError {
  return new ThreadbaseError('not_found', `there is no object ${key}`, { key })
}

export function noBlob(sha256: Sha256): ThreadbaseError {
  return new ThreadbaseError('not_found', `there are no bytes of ${sha256}`, { sha256 })
}
