import {
  ListMultipartUploadsCommand,
  type ListMultipartUploadsCommandOutput,
  ListObjectsV2Command,
} from '@aws-sdk/client-s3'
import { keyOf, type Sha256, type StoredBlob, UPLOADS } from './blobs.ts'
import type { S3 } from './s3-client.ts'
import { removeObject } from './s3-objects.ts'
import { abortUpload } from './s3-parts.ts'

const BLOBS = 'output/artifacts/'
const LANES = 8

/** By key, which is by hash. */
export async function* listBlobs(s3: S3, after?: Sha256): AsyncGenerator<StoredBlob> {
  const from = after === undefined ? undefined : `${s3.prefix}${keyOf(after)}`
  for await (const { key, size, modifiedAt } of listObjects(s3, `${s3.prefix}${BLOBS}`, from)) {
    const sha256 = key.slice(-64)
    if (/^[0-9a-f]{64}$/.test(sha256) && key === `${s3.prefix}${keyOf(sha256)}`)
      yield { sha256, size, modifiedAt }
  }
}

/** Removes objects below `uploads/`, and the parts of uploads that nobody completed. @returns how many */
export async function sweep(s3: S3, before: number): Promise<number> {
  const removed = await eachOf(listObjects(s3, `${s3.prefix}${UPLOADS}`), async ({ key, modifiedAt }) => {
    if (modifiedAt.getTime() >= before) return false
    await removeObject(s3, key)
    return true
  })
  let aborted = 0
  for (const prefix of [UPLOADS, BLOBS])
    aborted += await eachOf(listUploads(s3, `${s3.prefix}${prefix}`), async ({ key, id, startedAt }) => {
      if (startedAt.getTime() >= before) return false
      await abortUpload(s3, key, id)
      return true
    })
  return removed + aborted
}

type Listed = { key: string; size: number; modifiedAt: Date }

async function* listObjects(s3: S3, Prefix: string, StartAfter?: string): AsyncGenerator<Listed> {
  let ContinuationToken: string | undefined
  do {
    // as a URL: somebody's key may hold what XML cannot
    const command = new ListObjectsV2Command({
      Bucket: s3.bucket,
      Prefix,
      StartAfter,
      ContinuationToken,
      EncodingType: 'url',
    })
    const page = await s3.ask(() => s3.client.send(command))
    for (const { Key = '', Size = 0, LastModified = new Date() } of page.Contents ?? [])
      yield { key: fromUrl(Key), size: Size, modifiedAt: LastModified }
    ContinuationToken = page.IsTruncated ? page.NextContinuationToken : undefined
  } while (ContinuationToken !== undefined)
}

async function* listUploads(s3: S3, Prefix: string) {
  let from: { KeyMarker?: string; UploadIdMarker?: string } | undefined = {}
  do {
    const command = new ListMultipartUploadsCommand({
      Bucket: s3.bucket,
      Prefix,
      EncodingType: 'url',
      ...from,
    })
    const page: ListMultipartUploadsCommandOutput = await s3.ask(() => s3.client.send(command))
    for (const { Key = '', UploadId = '', Initiated = new Date() } of page.Uploads ?? [])
      yield { key: fromUrl(Key), id: UploadId, startedAt: Initiated }
    from = page.IsTruncated
      ? { KeyMarker: fromUrl(page.NextKeyMarker ?? ''), UploadIdMarker: page.NextUploadIdMarker }
      : undefined
  } while (from !== undefined)
}

const fromUrl = (text: string) => decodeURIComponent(text.replaceAll('+', ' '))

/** Some of them at a time. @returns for how many the work answered true */
async function eachOf<T>(items: AsyncIterable<T>, work: (item: T) => Promise<boolean>): Promise<number> {
  let count = 0
  const iterator = items[Symbol.asyncIterator]()
  // an asynchronous generator answers one call after the other
  const lane = async () => {
    for (let next = await iterator.next(); !next.done; next = await iterator.next())
      if (await work(next.value)) count++
  }
  await Promise.all(Array.from({ length: LANES }, lane))
  return count
}
