import { CopyObjectCommand, UploadPartCopyCommand } from '@aws-sdk/client-s3'
import { ThreadbaseError } from '../core/errors.ts'
import { isMissing, type S3, statusOf } from './s3-client.ts'
import { MAX_PARTS, sendParts } from './s3-parts.ts'

export type CopySource = {
  key: string
  size: number
  /** Of the bytes that are meant: others are not copied. Default: whatever is there. */
  etag?: string
}

const LANES = 4

/** Copies an object within the storage, over what is there. @throws conflict when it is another one than `etag` says, or gone */
export async function copyObject(s3: S3, source: CopySource, key: string): Promise<void> {
  if (source.size > s3.copyBytes) return copyInParts(s3, source, key)
  const command = new CopyObjectCommand({
    ...originOf(s3, source),
    Bucket: s3.bucket,
    Key: key,
    // what somebody else said of an upload stays behind
    MetadataDirective: 'REPLACE',
    ContentType: 'application/octet-stream',
  })
  await asking(s3, source, () => s3.client.send(command))
}

function copyInParts(s3: S3, source: CopySource, key: string): Promise<void> {
  const { size } = source
  const step = Math.max(s3.copyPartBytes, Math.ceil(size / MAX_PARTS))
  const starts = Array.from({ length: Math.ceil(size / step) }, (_, i) => i * step)
  return sendParts(s3, key, starts, LANES, async (start, target, abortSignal) => {
    const CopySourceRange = `bytes=${start}-${Math.min(start + step, size) - 1}`
    const command = new UploadPartCopyCommand({ ...originOf(s3, source), ...target, CopySourceRange })
    const copied = await asking(s3, source, () => s3.client.send(command, { abortSignal }))
    return copied.CopyPartResult?.ETag
  })
}

async function asking<T>(s3: S3, { key, etag }: CopySource, work: () => Promise<T>): Promise<T> {
  const isChanged = (error: unknown) => etag !== undefined && (statusOf(error) === 412 || isMissing(error))
  const answer = await s3.askUnless(isChanged, work)
  if (answer === undefined) throw changed(key)
  return answer
}

/** Of an object that was read, and is not that which was read. */
export function changed(key: string): ThreadbaseError {
  return new ThreadbaseError('conflict', `the object ${key} was changed while it was taken over`, { key })
}

function originOf({ bucket }: S3, { key, etag }: CopySource) {
  const path = key.split('/').map(encodeURIComponent).join('/')
  return { CopySource: `${bucket}/${path}`, CopySourceIfMatch: etag }
}
