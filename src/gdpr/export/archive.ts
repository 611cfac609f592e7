import { createHash } from 'node:crypto'
import { PassThrough, Readable } from 'node:stream'
import { ZipFile } from 'yazl'
import { ThreadbaseError } from '../../core/errors.ts'

export type EntryFacts = { bytes: number; sha256: string }

export type Archive = {
  /** The archive's bytes. Who reads them no longer destroys it, which ends all that is under way. */
  readonly stream: Readable
  /**
   * Writes one file behind the others, as fast as the archive is read.
   * @param options.size where it is known, for files of more than 4 GB
   */
  add(path: string, chunks: AsyncIterable<Uint8Array | string>, options?: AddOptions): Promise<EntryFacts>
  /** No file comes behind this. */
  end(): void
  /** Breaks it off: who reads it gets the error. */
  fail(error: Error): void
}
type AddOptions = { compress?: boolean; size?: number }

const ZIP64_FROM = 0xffff_fffe
const BUFFERED = 256 * 1_024
// a file in it may be read and written by its owner, and read by others
const MODE = 0o100644

/** A zip that is made while it is read: no more of it is in memory than some hundred kilobytes, and a line for each file. */
export function createArchive(mtime: Date): Archive {
  const zip = new ZipFile()
  const inner = zip.outputStream as Readable
  const stream = new PassThrough({ highWaterMark: BUFFERED })
  let current: Readable | undefined
  inner.pipe(stream)
  stream.once('close', () => {
    inner.unpipe(stream)
    current?.destroy(aborted())
  })
  const fail = (error: Error) => {
    if (!stream.destroyed) stream.destroy(error)
  }
  zip.on('error', fail)

  return {
    stream,
    fail,
    add(path, chunks, { compress = true, size = 0 } = {}) {
      if (stream.destroyed) return Promise.reject(aborted())
      const digest = createHash('sha256')
      let bytes = 0
      const watched = async function* () {
        for await (const chunk of chunks) {
          const data = typeof chunk === 'string' ? Buffer.from(chunk) : chunk
          if (data.length === 0) continue
          digest.update(data)
          bytes += data.length
          yield data
        }
      }
      const source = Readable.from(watched(), { objectMode: false, highWaterMark: BUFFERED })
      current = source
      return new Promise((resolve, reject) => {
        let ended = false
        source.once('end', () => {
          ended = true
        })
        source.once('error', (error) => {
          fail(error)
          reject(error)
        })
        source.once('close', () => {
          if (ended) resolve({ bytes, sha256: digest.digest('hex') })
          else reject(aborted())
        })
        const forceZip64Format = size > ZIP64_FROM
        zip.addReadStream(source, path, { compress, mtime, mode: MODE, forceZip64Format })
      })
    },
    end: () => zip.end(),
  }
}

function aborted(): ThreadbaseError {
  return new ThreadbaseError('unavailable', 'nobody reads the archive any more')
}
