import { randomBytes } from 'node:crypto'
import {
  AbortMultipartUploadCommand,
  CreateBucketCommand,
  DeleteBucketCommand,
  DeleteObjectCommand,
  ListMultipartUploadsCommand,
  PutObjectCommand,
  paginateListObjectsV2,
  S3Client,
} from '@aws-sdk/client-s3'
import type { S3Options } from '../src/blobs/s3.ts'
import { s3Endpoint } from './harness.ts'

/** Of the user that scripts/test-s3.sh makes. */
export const TEST_CREDENTIALS = { accessKeyId: 'AKTEST', secretAccessKey: 'secretsecretsecret' }
const REGION = 'us-east-1'

export type TestBucket = {
  name: string
  /** What opens it, with a prefix. */
  options: S3Options
  client: S3Client
  put(key: string, bytes: Uint8Array): Promise<void>
  /** Every key in it. */
  keys(): Promise<string[]>
  /** The keys of uploads in parts that were begun and neither completed nor given up. */
  uploads(): Promise<string[]>
  empty(): Promise<void>
  /** The bucket, and all that is in it. */
  remove(): Promise<void>
}

/** A bucket that no other test file uses, on the server of this run. */
export async function makeBucket(options: Partial<S3Options> = {}): Promise<TestBucket> {
  if (s3Endpoint === null) throw new Error('there is no S3 server for tests')
  const Bucket = `threadbase-test-${randomBytes(6).toString('hex')}`
  const access = { endpoint: s3Endpoint, forcePathStyle: true, region: REGION, credentials: TEST_CREDENTIALS }
  const client = new S3Client({ ...access, requestChecksumCalculation: 'WHEN_REQUIRED' })
  await client.send(new CreateBucketCommand({ Bucket }))
  const keys = async () => {
    const found: string[] = []
    for await (const { Contents = [] } of paginateListObjectsV2({ client }, { Bucket }))
      found.push(...Contents.map(({ Key = '' }) => Key))
    return found
  }
  const begun = async () => (await client.send(new ListMultipartUploadsCommand({ Bucket }))).Uploads ?? []
  const empty = async () => {
    for (const { Key, UploadId } of await begun())
      await client.send(new AbortMultipartUploadCommand({ Bucket, Key, UploadId }))
    const left = await keys()
    const lane = async () => {
      for (let Key = left.pop(); Key !== undefined; Key = left.pop())
        await client.send(new DeleteObjectCommand({ Bucket, Key }))
    }
    await Promise.all(Array.from({ length: 16 }, lane))
  }
  return {
    name: Bucket,
    options: { bucket: Bucket, prefix: 'team/threadbase/', ...access, ...options },
    client,
    put: async (Key, Body) => void (await client.send(new PutObjectCommand({ Bucket, Key, Body }))),
    keys,
    uploads: async () => (await begun()).map(({ Key = '' }) => Key),
    empty,
    async remove() {
      await empty()
      await client.send(new DeleteBucketCommand({ Bucket }))
      client.destroy()
    },
  }
}
