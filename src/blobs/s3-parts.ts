import {
  AbortMultipartUploadCommand,
  type CompletedPart,
  CompleteMultipartUploadCommand,
  CreateMultipartUploadCommand,
  UploadPartCommand,
} from '@aws-sdk/client-s3'
import { ThreadbaseError } from '../core/errors.ts'
import { isMissing, type S3 } from './s3-client.ts'
import { headObject } from './s3-objects.ts'

export const MAX_PARTS = 10_000
const LANES = 3

export type PartTarget = { Bucket: string; Key: string; UploadId: string; PartNumber: number }
type SendPart<T> = (part: T, target: PartTarget, abortSignal: AbortSignal) => Promise<string | undefined>

/**
 * Puts an object together from its parts. Two are on their way while the next one is read; memory is that of three.
 * When anything fails, what was sent is given up, as far as the storage still answers.
 * @param whenSent told of each part that has arrived, whose memory is free then
 * @throws too_large for more than 10,000 parts; what the source throws
 */
export function uploadParts<T extends Uint8Array>(
  s3: S3,
  key: string,
  parts: AsyncIterable<T>,
  whenSent: (part: T) => void,
): Promise<void> {
  return sendParts(s3, key, parts, LANES, async (body, target, abortSignal) => {
    // its SHA-256 is in the signature: no other bytes are taken
    const command = new UploadPartCommand({ ...target, Body: body, ContentLength: body.length })
    const { ETag } = await s3.client.send(command, { abortSignal })
    whenSent(body)
    return ETag
  })
}

/** Sends so many parts at a time, each with `send`, which answers the part's ETag. */
export async function sendParts<T>(
  s3: S3,
  key: string,
  parts: AsyncIterable<T> | Iterable<T>,
  lanes: number,
  send: SendPart<T>,
): Promise<void> {
  const place = { Bucket: s3.bucket, Key: key }
  const create = new CreateMultipartUploadCommand({ ...place, ContentType: 'application/octet-stream' })
  const { UploadId = '' } = await s3.ask(() => s3.client.send(create))
  const giveUp = new AbortController()
  const running = new Set<Promise<void>>()
  try {
    const sent: CompletedPart[] = []
    let PartNumber = 0
    for await (const part of parts) {
      const target = { ...place, UploadId, PartNumber: ++PartNumber }
      if (PartNumber > MAX_PARTS) throw tooManyParts(s3)
      const sending = s3
        .ask(() => send(part, target, giveUp.signal))
        .then((ETag) => {
          sent.push({ ETag, PartNumber: target.PartNumber })
          running.delete(sending)
        })
      sending.catch(() => {})
      running.add(sending)
      if (running.size >= lanes) await Promise.race(running)
    }
    await Promise.all(running)
    await complete(s3, { ...place, UploadId }, sent)
  } catch (error) {
    giveUp.abort()
    // one that arrives after the end of its upload would stay
    await Promise.allSettled(running)
    await abortUpload(s3, key, UploadId, AbortSignal.timeout(s3.idleTimeoutMs)).catch((reason) =>
      s3.log?.warn({ err: reason, upload: key }, 'an upload that failed is left to be swept'),
    )
    throw error
  }
}

async function complete(
  s3: S3,
  target: Omit<PartTarget, 'PartNumber'>,
  sent: CompletedPart[],
): Promise<void> {
  const Parts = sent.toSorted((a, b) => (a.PartNumber ?? 0) - (b.PartNumber ?? 0))
  const command = new CompleteMultipartUploadCommand({ ...target, MultipartUpload: { Parts } })
  if ((await s3.askUnless(isMissing, () => s3.client.send(command))) !== undefined) return
  // asked again after an answer that was lost, it is complete already and no longer known
  if ((await headObject(s3, target.Key)) === undefined)
    throw new ThreadbaseError('unavailable', `${s3.description} forgot an upload`, { code: 'NoSuchUpload' })
}

/** No change when there is none. */
export async function abortUpload(
  s3: S3,
  key: string,
  UploadId: string,
  abortSignal?: AbortSignal,
): Promise<void> {
  const command = new AbortMultipartUploadCommand({ Bucket: s3.bucket, Key: key, UploadId })
  await s3.askUnless(isMissing, () => s3.client.send(command, { abortSignal }))
}

function tooManyParts({ partBytes }: S3): ThreadbaseError {
  const maxBytes = MAX_PARTS * partBytes
  return new ThreadbaseError('too_large', `more than ${maxBytes} bytes`, { maxBytes })
}
