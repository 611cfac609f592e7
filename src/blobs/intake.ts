import { createHash, type Hash } from 'node:crypto'
import { Transform, type TransformCallback } from 'node:stream'
import { ThreadbaseError } from '../core/errors.ts'
import { BEGINNING_BYTES, type BlobFacts, type Sha256, type StageOptions } from './blobs.ts'
import { passedBy } from './transient.ts'

/** Counts, hashes and keeps the beginning of bytes that go by, and ends them when there are too many. */
export type Intake = {
  /** @throws too_large; invalid_input as soon as there are more than were announced */
  add(chunk: Uint8Array): void
  /** @throws invalid_input when they are not what was announced */
  end(): BlobFacts & { beginning: Uint8Array }
}

export function createIntake({ maxBytes = Number.POSITIVE_INFINITY, size, sha256 }: StageOptions): Intake {
  const hash: Hash = createHash('sha256')
  const beginning: Uint8Array[] = []
  let kept = 0
  let count = 0
  return {
    add(chunk) {
      count += chunk.length
      if (count > maxBytes)
        throw new ThreadbaseError('too_large', `more than ${maxBytes} bytes`, { maxBytes })
      if (size !== undefined && count > size) throw otherSize(size, `more than ${size}`)
      hash.update(chunk)
      if (kept < BEGINNING_BYTES) {
        // a copy: whoever reads may use the same buffer again
        const part = Uint8Array.prototype.slice.call(chunk, 0, BEGINNING_BYTES - kept)
        beginning.push(part)
        kept += part.length
      }
    },
    end() {
      if (size !== undefined && count !== size) throw otherSize(size, String(count))
      const found = hash.digest('hex')
      if (sha256 !== undefined && found !== sha256) throw otherHash(sha256, found)
      return { sha256: found, size: count, beginning: Buffer.concat(beginning) }
    },
  }
}

function otherSize(announced: number, found: string): ThreadbaseError {
  const message = `${announced} bytes were announced and ${found} came`
  return new ThreadbaseError('invalid_input', message, { field: 'size', announced })
}

function otherHash(announced: Sha256, found: Sha256): ThreadbaseError {
  const message = `the bytes have SHA-256 ${found}, not ${announced} as announced`
  return new ThreadbaseError('invalid_input', message, { field: 'sha256', announced, found })
}

/** Passes bytes on, and fails at their end when they are not those of the hash. */
export function createVerifier(sha256: Sha256): Transform {
  const hash = createHash('sha256')
  return new Transform({
    transform(chunk: Uint8Array, _encoding, done: TransformCallback) {
      hash.update(chunk)
      done(null, chunk)
    },
    flush(done: TransformCallback) {
      const found = hash.digest('hex')
      const message = `the stored bytes of ${sha256} are not what they were: they have SHA-256 ${found}`
      done(found === sha256 ? null : new ThreadbaseError('unavailable', message, { sha256, found }))
    },
  })
}

const CHUNK_BYTES = 1 << 20
const MAX_SPARE = 32
const spare: Buffer[] = []

/**
 * `work` on the same bytes in chunks of 1 MiB, but for the last: a write for each packet of a network would take longer
 * than the bytes. One is at work while the next is gathered. A chunk is used again once its work is done: allocated anew
 * each time, they would pile up until the garbage collector has a reason to run.
 */
export async function forEachChunk(
  source: AsyncIterable<Uint8Array>,
  work: (chunk: Buffer) => Promise<void>,
): Promise<void> {
  let chunk = takeSpare()
  let other = takeSpare()
  let length = 0
  let working: Promise<void> = Promise.resolve()
  const flush = async () => {
    await working
    working = work(chunk.subarray(0, length))
    working.catch(() => {})
    passedBy(length)
    ;[chunk, other] = [other, chunk]
    length = 0
  }
  try {
    for await (const part of source) {
      for (let done = 0; done < part.length; ) {
        const count = Math.min(part.length - done, CHUNK_BYTES - length)
        chunk.set(part.subarray(done, done + count), length)
        done += count
        length += count
        if (length === CHUNK_BYTES) await flush()
      }
    }
    if (length > 0) await flush()
  } finally {
    // also when the source failed: what is at work has a chunk still
    await working
    if (spare.length < MAX_SPARE) spare.push(chunk, other)
  }
}

const takeSpare = () => spare.pop() ?? Buffer.allocUnsafeSlow(CHUNK_BYTES)
