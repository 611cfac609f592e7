import { Readable, Transform } from 'node:stream'
import { GetObjectCommand } from '@aws-sdk/client-s3'
import { ThreadbaseError } from '../core/errors.ts'
import type { ReadOptions } from './blobs.ts'
import { isMissing, type S3, statusOf } from './s3-client.ts'

const CHUNK_BYTES = 1 << 18

/** The object's bytes, or those of a range; undefined when there is none. A range beyond its end is empty. */
export async function openObject(
  s3: S3,
  key: string,
  { start, end }: ReadOptions = {},
): Promise<Readable | undefined> {
  const Range = start === undefined && end === undefined ? undefined : `bytes=${start ?? 0}-${end ?? ''}`
  const command = new GetObjectCommand({ Bucket: s3.bucket, Key: key, Range })
  try {
    const { Body, ContentLength, ContentRange } = await s3.downloads.send(command)
    const source = Body as Readable
    if (ContentLength === undefined || (Range !== undefined && ContentRange === undefined)) {
      source.destroy()
      const message = `${s3.description} failed: it ${Range ? 'knows no ranges' : 'says no length'}`
      throw new ThreadbaseError('unavailable', message)
    }
    return guarded(s3, source, ContentLength)
  } catch (error) {
    if (isMissing(error)) return undefined
    if (statusOf(error) === 416) return Readable.from([])
    throw s3.toUnavailable(error)
  }
}

/** The same bytes, of which not one may be missing. The storage's silence has an end, a slow reader has time. */
function guarded(s3: S3, source: Readable, length: number): Readable {
  let count = 0
  const timer = setTimeout(() => {
    if (guard.writableNeedDrain) timer.refresh()
    else guard.destroy(s3.toUnavailable(Object.assign(new Error(), { name: 'TimeoutError' })))
  }, s3.idleTimeoutMs)
  const guard = new Transform({
    writableHighWaterMark: CHUNK_BYTES,
    readableHighWaterMark: CHUNK_BYTES,
    transform(chunk: Uint8Array, _encoding, done) {
      timer.refresh()
      count += chunk.length
      done(null, chunk)
    },
    flush: (done) => done(count === length ? null : cutShort()),
  })
  const cutShort = () => {
    const message = `${s3.description} failed: ${count} of ${length} bytes came`
    return new ThreadbaseError('unavailable', message, { code: 'incomplete' })
  }
  source.once('end', () => clearTimeout(timer))
  source.once('error', (error) => guard.destroy(s3.toUnavailable(error)))
  // one that was destroyed ends without a word
  source.once('close', () => {
    if (!source.readableEnded) guard.destroy(cutShort())
  })
  guard.once('close', () => {
    clearTimeout(timer)
    source.destroy()
  })
  return source.pipe(guard)
}
