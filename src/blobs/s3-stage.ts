import { randomUUID } from 'node:crypto'
import { ThreadbaseError } from '../core/errors.ts'
import { keyOf, noObject, requireStageable, type Staged, type StageOptions, UPLOADS } from './blobs.ts'
import { createIntake, firstTwo, type Intake, inParts, requireSize, type TakenIn, takenBy } from './intake.ts'
import type { S3 } from './s3-client.ts'
import { copyObject } from './s3-copy.ts'
import { findObject, headObject, putOnce, removeObject } from './s3-objects.ts'
import { uploadParts } from './s3-parts.ts'
import { openObject } from './s3-read.ts'

/** What fits into one part stays in memory until it is committed; what does not is sent to a key of its own. */
export async function stageBytes(
  s3: S3,
  source: AsyncIterable<Uint8Array>,
  options: StageOptions,
): Promise<Staged> {
  const intake = createIntake(options)
  const free: Buffer[] = []
  const parts = inParts(takenBy(intake, source), s3.partBytes, options.size, free)
  try {
    const head = await firstTwo(parts)
    if (head.length < 2) return inMemory(s3, intake.end(), head[0] ?? new Uint8Array())
    if (await isStored(s3, options)) {
      free.push(...head.splice(0))
      await drain(parts, free)
      return known(s3, intake.end())
    }
    return await uploaded(s3, intake, head, parts, free)
  } finally {
    await parts.return()
  }
}

async function drain(parts: AsyncIterable<Buffer>, free: Buffer[]): Promise<void> {
  for await (const part of parts) free.push(part)
}

async function isStored(s3: S3, { sha256, size }: StageOptions): Promise<boolean> {
  if (sha256 === undefined || size === undefined) return false
  return (await headObject(s3, finalKey(s3, sha256)))?.size === size
}

const newKey = ({ prefix }: S3) => `${prefix}${UPLOADS}${randomUUID()}`
const finalKey = ({ prefix }: S3, sha256: string) => `${prefix}${keyOf(sha256)}`

function inMemory(s3: S3, facts: TakenIn, bytes: Uint8Array): Staged {
  return staged(facts, () => putOnce(s3, finalKey(s3, facts.sha256), facts, bytes))
}

/** Bytes that were stored when they began to come, and are the same: they were not sent once more. */
function known(s3: S3, facts: TakenIn): Staged {
  return staged(facts, async () => {
    const there = await headObject(s3, finalKey(s3, facts.sha256))
    if (there?.size === facts.size) return { existed: true }
    const message = `the bytes of ${facts.sha256} were removed while they were sent again`
    throw new ThreadbaseError('unavailable', message, { sha256: facts.sha256 })
  })
}

async function uploaded(
  s3: S3,
  intake: Intake,
  head: Buffer[],
  parts: AsyncIterable<Buffer>,
  free: Buffer[],
): Promise<Staged> {
  const key = newKey(s3)
  let facts: TakenIn | undefined
  const all = async function* () {
    yield* head
    yield* parts
    facts = intake.end()
  }
  await uploadParts(s3, key, all(), (part) => free.push(part))
  if (facts === undefined) throw new Error('the parts have not ended')
  return movable(s3, facts, key)
}

/**
 * Takes over an object that somebody else put there. It is copied within the storage first, and the copy is read: who
 * can write the object can change it at any time, also between its being read and its having its place.
 */
export async function stageObject(s3: S3, from: string, options: StageOptions): Promise<Staged> {
  const { isUpload } = requireStageable(from, s3.prefix)
  const source = await findObject(s3, from)
  if (source === undefined) throw noObject(from)
  requireSize(source.size, options)
  const key = newKey(s3)
  try {
    await copyObject(s3, from, source.size, key)
    const opened = await openObject(s3, key)
    if (opened === undefined) throw noObject(key)
    const intake = createIntake(options)
    for await (const chunk of opened) intake.add(chunk)
    return movable(s3, intake.end(), key, isUpload ? [from] : [])
  } catch (error) {
    await leaveNone(s3, [key])
    throw error
  }
}

/** What lies under a key that nobody else knows. */
function movable(s3: S3, facts: TakenIn, key: string, others: string[] = []): Staged {
  let isGone = false
  const discard = async () => {
    if (!isGone) await removeObject(s3, key)
    isGone = true
  }
  const commit = async () => {
    const to = finalKey(s3, facts.sha256)
    const existed = (await headObject(s3, to))?.size === facts.size
    if (!existed) await copyObject(s3, key, facts.size, to)
    isGone = await leaveNone(s3, [key, ...others])
    return { existed }
  }
  return staged(facts, commit, discard)
}

/** Whether none of them is left. What the storage did not remove is found by a sweep. */
async function leaveNone(s3: S3, keys: string[]): Promise<boolean> {
  try {
    for (const key of keys) await removeObject(s3, key)
    return true
  } catch (error) {
    s3.log?.warn({ err: error }, 'a staged object is left to be swept')
    return false
  }
}

function staged(
  facts: TakenIn,
  commit: Staged['commit'],
  discard: Staged['discard'] = async () => {},
): Staged {
  return { ...facts, commit, discard, [Symbol.asyncDispose]: discard }
}
