import { CopyObjectCommand, UploadPartCopyCommand } from '@aws-sdk/client-s3'
import type { S3 } from './s3-client.ts'
import { MAX_PARTS, sendParts } from './s3-parts.ts'

const LANES = 4

/** Copies an object within the storage, over what is there. */
export async function copyObject(s3: S3, from: string, size: number, to: string): Promise<void> {
  if (size > s3.copyBytes) return copyInParts(s3, from, size, to)
  const command = new CopyObjectCommand({
    Bucket: s3.bucket,
    Key: to,
    CopySource: sourceOf(s3, from),
    // what somebody else said of an upload stays behind
    MetadataDirective: 'REPLACE',
    ContentType: 'application/octet-stream',
  })
  await s3.ask(() => s3.client.send(command))
}

function copyInParts(s3: S3, from: string, size: number, to: string): Promise<void> {
  const step = Math.max(s3.copyPartBytes, Math.ceil(size / MAX_PARTS))
  const starts = Array.from({ length: Math.ceil(size / step) }, (_, i) => i * step)
  return sendParts(s3, to, starts, LANES, async (start, target, abortSignal) => {
    const CopySourceRange = `bytes=${start}-${Math.min(start + step, size) - 1}`
    const command = new UploadPartCopyCommand({ ...target, CopySource: sourceOf(s3, from), CopySourceRange })
    return (await s3.client.send(command, { abortSignal })).CopyPartResult?.ETag
  })
}

const sourceOf = ({ bucket }: S3, key: string) =>
  `${bucket}/${key.split('/').map(encodeURIComponent).join('/')}`
