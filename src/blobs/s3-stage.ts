import { randomUUID } from 'node:crypto'
import { ThreadbaseError } from '../core/errors.ts'
import { keyOf, noObject, requireStageable, type Staged, type StageOptions, UPLOADS } from './blobs.ts'
import { createIntake, type Intake, inParts, type TakenIn } from './intake.ts'
import type { S3 } from './s3-client.ts'
import { type CopySource, changed, copyObject } from './s3-copy.ts'
import { headObject, putOnce, removeObject } from './s3-objects.ts'
import { uploadParts } from './s3-parts.ts'
import { openObject } from './s3-read.ts'

/** What fits into one part stays in memory until it is committed; what does not is sent to a key of its own. */
export async function stageBytes(
  s3: S3,
  source: AsyncIterable<Uint8Array>,
  options: StageOptions,
): Promise<Staged> {
  const intake = createIntake(options)
  const parts = inParts(takenBy(intake, source), s3.partBytes, options.size)
  try {
    const head = await firstTwo(parts)
    if (head.length < 2) return inMemory(s3, intake.end(), head[0] ?? new Uint8Array())
    if (await isStored(s3, options)) {
      head.length = 0
      await drain(parts)
      return known(s3, intake.end())
    }
    return await uploaded(s3, intake, head, parts)
  } finally {
    await parts.return()
  }
}

async function* takenBy(intake: Intake, source: AsyncIterable<Uint8Array>) {
  for await (const chunk of source) {
    intake.add(chunk)
    yield chunk
  }
}

async function firstTwo(parts: AsyncGenerator<Buffer>): Promise<Buffer[]> {
  const head: Buffer[] = []
  while (head.length < 2) {
    const { value, done } = await parts.next()
    if (done) break
    head.push(value)
  }
  return head
}

async function drain(parts: AsyncGenerator<Buffer>): Promise<void> {
  while (!(await parts.next()).done);
}

async function isStored(s3: S3, { sha256, size }: StageOptions): Promise<boolean> {
  if (sha256 === undefined || size === undefined) return false
  return (await headObject(s3, finalKey(s3, sha256)))?.size === size
}

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
): Promise<Staged> {
  const key = `${s3.prefix}${UPLOADS}${randomUUID()}`
  let facts: TakenIn | undefined
  const all = async function* () {
    // nothing here keeps a part that was sent
    while (head.length > 0) yield head.shift() as Buffer
    yield* parts
    facts = intake.end()
  }
  await uploadParts(s3, key, all())
  if (facts === undefined) throw new Error('the parts have not ended')
  return movable(s3, facts, { key, size: facts.size }, true)
}

/** Takes over an object that somebody else put there: as it was when it was read, or not at all. */
export async function stageObject(s3: S3, key: string, options: StageOptions): Promise<Staged> {
  const { isUpload } = requireStageable(key, s3.prefix)
  const opened = await openObject(s3, key)
  if (opened === undefined) throw noObject(key)
  const intake = createIntake(options)
  for await (const chunk of opened.body) intake.add(chunk)
  const facts = intake.end()
  const source = { key, size: facts.size, etag: opened.etag }
  const { commit } = movable(s3, facts, source, isUpload)
  // whoever put it there may want to try again
  return staged(facts, commit)
}

/** What lies under another key already. */
function movable(s3: S3, facts: TakenIn, source: CopySource, removes: boolean): Staged {
  const to = finalKey(s3, facts.sha256)
  let isGone = !removes
  const discard = async () => {
    if (!isGone) await removeObject(s3, source.key)
    isGone = true
  }
  const commit = async () => {
    const there = await headObject(s3, to)
    const existed = there?.size === facts.size
    if (to === source.key) {
      if (there?.etag !== source.etag) throw changed(to)
    } else if (!existed) await copyObject(s3, source, to)
    // the bytes have their place: what stays is found by a sweep
    await discard().catch((error) => s3.log?.warn({ err: error }, 'a staged object is left to be swept'))
    return { existed }
  }
  return staged(facts, commit, discard)
}

function staged(
  facts: TakenIn,
  commit: Staged['commit'],
  discard: Staged['discard'] = async () => {},
): Staged {
  return { ...facts, commit, discard, [Symbol.asyncDispose]: discard }
}
