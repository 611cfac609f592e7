import { randomUUID } from 'node:crypto'
import { pipeline, type Readable } from 'node:stream'
import { GetObjectCommand, PutObjectCommand } from '@aws-sdk/client-s3'
import { getSignedUrl } from '@aws-sdk/s3-request-presigner'
import { ThreadbaseError } from '../core/errors.ts'
import {
  type BlobFacts,
  type Blobs,
  keyOf,
  noBlob,
  type PresignedPut,
  type PresignGetOptions,
  type ReadOptions,
  requireRange,
  requireSha256,
  requireUpload,
  type Sha256,
  type StoredBlob,
  UPLOADS,
} from './blobs.ts'
import { createVerifier } from './intake.ts'
import { createS3, type S3, type S3Options } from './s3-client.ts'
import { listBlobs, sweep } from './s3-list.ts'
import { findObject, removeObject, toBase64 } from './s3-objects.ts'
import { openObject } from './s3-read.ts'
import { stageBytes, stageObject } from './s3-stage.ts'

export type { S3Options } from './s3-client.ts'

const MAX_PUT_BYTES = 5 * 2 ** 30
const MAX_EXPIRES_S = 7 * 86_400

/** Bytes as objects of a bucket that is there already, in S3 or what speaks its language. Asks nobody anything yet. */
export function openS3(options: S3Options): Blobs {
  const s3 = createS3(options)
  const place = (sha256: Sha256) => `${s3.prefix}${keyOf(sha256)}`
  return {
    engine: 's3',
    description: s3.description,
    stage: (source, options = {}) => stageBytes(s3, source, options),
    stageObject: (key, options = {}) => stageObject(s3, key, options),
    find: (sha256) => find(s3, place(sha256), sha256),
    locate: (sha256) => ({ key: place(sha256), url: `s3://${s3.bucket}/${place(sha256)}` }),
    read: async (sha256, options = {}) => read(s3, place(sha256), sha256, options),
    remove: (sha256) => removeObject(s3, place(sha256)),
    removeUpload: async (key) => removeObject(s3, requireUpload(key, s3.prefix)),
    list: (after) => listBlobs(s3, after && requireSha256(after)),
    sweepStaged: (olderThanMs) => sweep(s3, Date.now() - olderThanMs),
    presignGet: async (sha256, options) => presignGet(s3, place(sha256), options),
    presignPut: async (blob, { expiresInS }) => presignPut(s3, blob, expiresInS),
    async close() {
      s3.client.destroy()
      s3.downloads.destroy()
    },
  }
}

async function find(s3: S3, key: string, sha256: Sha256): Promise<StoredBlob | undefined> {
  const found = await findObject(s3, key)
  return found && { sha256, size: found.size, modifiedAt: found.modifiedAt }
}

async function read(s3: S3, key: string, sha256: Sha256, options: ReadOptions): Promise<Readable> {
  requireRange(options)
  const { start, end, verify } = options
  const opened = await openObject(s3, key, { start, end })
  if (opened === undefined) throw noBlob(sha256)
  if (verify !== true || start !== undefined || end !== undefined) return opened
  return pipeline(opened, createVerifier(sha256), () => {})
}

async function presignGet(s3: S3, key: string, options: PresignGetOptions): Promise<string> {
  const command = new GetObjectCommand({
    Bucket: s3.bucket,
    Key: key,
    ResponseContentType: options.contentType,
    ResponseContentDisposition: options.contentDisposition,
  })
  const expiresIn = requireExpiry(options.expiresInS)
  return s3.ask(() => getSignedUrl(s3.client, command, { expiresIn }))
}

/** Length and checksum are signed: with others S3 refuses the request. */
async function presignPut(s3: S3, { sha256, size }: BlobFacts, expiresInS: number): Promise<PresignedPut> {
  const key = `${s3.prefix}${UPLOADS}${randomUUID()}`
  const expiresIn = requireExpiry(expiresInS)
  const checksum = toBase64(requireSha256(sha256))
  if (size > MAX_PUT_BYTES)
    throw new ThreadbaseError('too_large', `S3 takes ${MAX_PUT_BYTES} bytes in one piece`, {
      maxBytes: MAX_PUT_BYTES,
    })
  const command = new PutObjectCommand({
    Bucket: s3.bucket,
    Key: key,
    ContentLength: size,
    ChecksumSHA256: checksum,
  })
  const unhoistableHeaders = new Set(['x-amz-checksum-sha256'])
  const url = await s3.ask(() => getSignedUrl(s3.client, command, { expiresIn, unhoistableHeaders }))
  const headers = {
    'content-length': String(size),
    'content-type': 'application/octet-stream',
    'x-amz-checksum-sha256': checksum,
  }
  return { url, method: 'PUT', headers, key }
}

function requireExpiry(expiresInS: number): number {
  if (Number.isSafeInteger(expiresInS) && expiresInS >= 1 && expiresInS <= MAX_EXPIRES_S) return expiresInS
  const message = `a URL of S3 is good for 1 to ${MAX_EXPIRES_S} seconds`
  throw new ThreadbaseError('invalid_input', message, { field: 'expiresInS' })
}
