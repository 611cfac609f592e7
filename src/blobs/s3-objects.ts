import {
  DeleteObjectCommand,
  HeadBucketCommand,
  HeadObjectCommand,
  PutObjectCommand,
} from '@aws-sdk/client-s3'
import type { BlobFacts } from './blobs.ts'
import { isMissing, type S3, statusOf } from './s3-client.ts'

export type S3Object = { size: number; modifiedAt: Date }

/** Undefined when there is none. @throws unavailable when there is no bucket: whoever looks for lost bytes must know which */
export async function findObject(s3: S3, key: string): Promise<S3Object | undefined> {
  const found = await headObject(s3, key)
  if (found === undefined) await requireBucket(s3)
  return found
}

/** The same in one question. Undefined also when there is no bucket: S3 does not say which. */
export async function headObject(s3: S3, key: string): Promise<S3Object | undefined> {
  const command = new HeadObjectCommand({ Bucket: s3.bucket, Key: key })
  const head = await s3.askUnless(isMissing, () => s3.client.send(command))
  if (head === undefined) return undefined
  const { ContentLength: size = 0, LastModified: modifiedAt = new Date(0) } = head
  return { size, modifiedAt }
}

/** One that may not be asked for is taken to be there. */
async function requireBucket(s3: S3): Promise<void> {
  const command = new HeadBucketCommand({ Bucket: s3.bucket })
  try {
    await s3.client.send(command)
  } catch (error) {
    if (statusOf(error) === 404) throw s3.toUnavailable(Object.assign(new Error(), { name: 'NoSuchBucket' }))
    if (statusOf(error) !== 403) throw s3.toUnavailable(error)
  }
}

export async function removeObject(s3: S3, key: string): Promise<void> {
  const command = new DeleteObjectCommand({ Bucket: s3.bucket, Key: key })
  await s3.askUnless(isMissing, () => s3.client.send(command))
}

// somebody else was quicker; a delete at the same time; a server that does not know the condition
const isRefusedCondition = (error: unknown) => [412, 409, 501].includes(statusOf(error) ?? 0)

/** Puts the bytes under the key, unless as many are there. @returns whether they were */
export async function putOnce(
  s3: S3,
  key: string,
  { size, sha256 }: BlobFacts,
  body: Uint8Array,
): Promise<{ existed: boolean }> {
  const object = {
    Bucket: s3.bucket,
    Key: key,
    Body: body,
    ContentLength: size,
    ContentType: 'application/octet-stream',
    ChecksumSHA256: toBase64(sha256),
  }
  const there = await headObject(s3, key)
  if (there?.size === size) return { existed: true }
  if (there === undefined) {
    const command = new PutObjectCommand({ ...object, IfNoneMatch: '*' })
    if ((await s3.askUnless(isRefusedCondition, () => s3.client.send(command))) !== undefined)
      return { existed: false }
    if ((await headObject(s3, key))?.size === size) return { existed: true }
  }
  // cut short by something other than this program
  await s3.ask(() => s3.client.send(new PutObjectCommand(object)))
  return { existed: false }
}

/** As S3 writes checksums. */
export const toBase64 = (sha256: string) => Buffer.from(sha256, 'hex').toString('base64')
