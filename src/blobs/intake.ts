import { createHash, type Hash } from 'node:crypto'
import { Transform, type TransformCallback } from 'node:stream'
import { ThreadbaseError } from '../core/errors.ts'
import { BEGINNING_BYTES, type BlobFacts, type Sha256, type StageOptions } from './blobs.ts'
import { passedBy } from './transient.ts'

export type TakenIn = BlobFacts & { beginning: Uint8Array }

/** Counts, hashes and keeps the beginning of bytes that go by, and ends them when there are too many. */
export type Intake = {
  /** @throws too_large; invalid_input as soon as there are more than were announced */
  add(chunk: Uint8Array): void
  /** @throws invalid_input when they are not what was announced */
  end(): TakenIn
}

export function createIntake(options: StageOptions): Intake {
  const { sha256 } = options
  const hash: Hash = createHash('sha256')
  const beginning: Uint8Array[] = []
  let kept = 0
  let count = 0
  return {
    add(chunk) {
      count += chunk.length
      requireAtMost(count, options)
      hash.update(chunk)
      if (kept < BEGINNING_BYTES) {
        // a copy: whoever reads may use the same buffer again
        const part = Uint8Array.prototype.slice.call(chunk, 0, BEGINNING_BYTES - kept)
        beginning.push(part)
        kept += part.length
      }
    },
    end() {
      requireSize(count, options)
      const found = hash.digest('hex')
      if (sha256 !== undefined && found !== sha256) throw otherHash(sha256, found)
      return { sha256: found, size: count, beginning: Buffer.concat(beginning) }
    },
  }
}

function requireAtMost(
  count: number,
  { maxBytes = Number.POSITIVE_INFINITY, size = Number.POSITIVE_INFINITY }: StageOptions,
): void {
  if (count > maxBytes) throw new ThreadbaseError('too_large', `more than ${maxBytes} bytes`, { maxBytes })
  if (count > size) throw otherSize(size, `more than ${size}`)
}

/** The size of what is there whole. @throws as an intake does at its end */
export function requireSize(count: number, options: StageOptions): void {
  requireAtMost(count, options)
  const { size = count } = options
  if (count !== size) throw otherSize(size, String(count))
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

/** Passes bytes on once the intake has taken them. */
export async function* takenBy(
  intake: Intake,
  source: AsyncIterable<Uint8Array>,
): AsyncGenerator<Uint8Array> {
  for await (const chunk of source) {
    intake.add(chunk)
    yield chunk
  }
}

/** The first two parts, or as many as there are: one is a body that need not go in pieces. */
export async function firstTwo(parts: AsyncGenerator<Buffer>): Promise<Buffer[]> {
  const head: Buffer[] = []
  while (head.length < 2) {
    const { value, done } = await parts.next()
    if (done) break
    head.push(value)
  }
  return head
}

const FIRST_BYTES = 1 << 16

/**
 * The same bytes in parts of just that size, but for the last.
 * @param expected how many will come, where somebody said: the first part begins as large
 * @param free parts that nobody needs any more, whose memory is used again: new memory for each would be given back
 *   by the garbage collector only when there is a lot of it
 */
export async function* inParts(
  source: AsyncIterable<Uint8Array>,
  size: number,
  expected = 0,
  free: Buffer[] = [],
): AsyncGenerator<Buffer, void, undefined> {
  // most bodies are small: memory grows with what comes
  let part: Buffer = Buffer.allocUnsafeSlow(Math.min(size, Math.max(expected, FIRST_BYTES)))
  let length = 0
  for await (const chunk of source) {
    passedBy(chunk.length)
    for (let done = 0; done < chunk.length; ) {
      if (length === size) {
        yield part
        part = free.pop() ?? Buffer.allocUnsafeSlow(size)
        length = 0
      } else if (length === part.length) {
        part = Buffer.concat([part], Math.min(size, part.length * 2))
      }
      const taken = Math.min(chunk.length - done, part.length - length)
      part.set(chunk.subarray(done, done + taken), length)
      length += taken
      done += taken
    }
  }
  if (length > 0) yield part.subarray(0, length)
}
