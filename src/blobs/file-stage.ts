import { randomUUID } from 'node:crypto'
import type { Stats } from 'node:fs'
import { type FileHandle, mkdir, open, readFile, rename, rm, stat, utimes } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { setNewest } from '../core/newest.ts'
import { answering, isMissing, syncDirectory, writeAll } from '../files/system.ts'
import { type BlobFacts, type Staged, type StageOptions, UPLOADS } from './blobs.ts'
import { createIntake, firstTwo, inParts, type TakenIn, takenBy } from './intake.ts'

/** What fits into one part stays in memory until it is committed: most bodies do, and many of them are there already. */
const PART_BYTES = 1 << 20
/** The name of younger bytes may not have reached the disk: who gave it may be about to sync it. */
const SURELY_SYNCED_MS = 60_000
const MAX_REMEMBERED = 10_000

/** Where bytes are put, and which names of them reached the disk as far as this process knows. */
export type Place = {
  dir: string
  /** Where bytes of a hash belong. */
  pathOf(sha256: string): string
  /** By path the file that had the name then; empty for a directory that this process made. */
  synced: Map<string, string>
}

/** Takes bytes in: a small body in memory, another in a file below `uploads/`. */
export async function stage(
  place: Place,
  source: AsyncIterable<Uint8Array>,
  options: StageOptions,
  whenCommitted: () => Promise<void> = async () => {},
): Promise<Staged> {
  const { pathOf } = place
  const path = join(place.dir, UPLOADS, randomUUID())
  const intake = createIntake(options)
  const free: Buffer[] = []
  const parts = inParts(takenBy(intake, source), PART_BYTES, options.size, free)
  try {
    const head = await firstTwo(parts)
    if (head.length < 2) {
      const [bytes = Buffer.alloc(0)] = head
      const facts = intake.end()
      return staged(path, facts, () => putBytes(place, path, pathOf(facts.sha256), bytes), whenCommitted)
    }
    await writeFileSynced(path, head, parts, free)
    const facts = intake.end()
    return staged(path, facts, () => giveName(place, path, pathOf(facts.sha256), facts.size), whenCommitted)
  } catch (error) {
    await rm(path, { force: true }).catch(() => {})
    throw error
  } finally {
    await parts.return()
  }
}

/** Bytes that somebody announced, as they come, in a file of that path. @throws invalid_input when they are others */
export async function writeAnnounced(
  path: string,
  source: AsyncIterable<Uint8Array>,
  facts: BlobFacts,
): Promise<void> {
  const intake = createIntake(facts)
  const free: Buffer[] = []
  await writeFileSynced(path, [], inParts(takenBy(intake, source), PART_BYTES, facts.size, free), free)
  intake.end()
}

function staged(
  path: string,
  facts: TakenIn,
  commit: () => Promise<boolean>,
  whenCommitted: () => Promise<void>,
): Staged {
  const discard = () =>
    answering(() =>
      rm(path, { force: true }).catch((error) => {
        // nothing was staged, where it cannot be
        if (!isMissing(error)) throw error
      }),
    )
  return {
    ...facts,
    commit: () =>
      answering(async () => {
        const existed = await commit()
        await Promise.all([rm(path, { force: true }), whenCommitted()])
        return { existed }
      }),
    discard,
    [Symbol.asyncDispose]: discard,
  }
}

/** What the source throws stays as it is, also where it is an error of the system. The disk writes while the next part comes. */
async function writeFileSynced(
  path: string,
  head: Buffer[],
  parts: AsyncIterable<Buffer>,
  free: Buffer[],
): Promise<void> {
  const file = await answering(() => openNew(path))
  let working: Promise<void> = Promise.resolve()
  const write = async (part: Buffer) => {
    await working
    working = answering(() => writeAll(file, part)).then(() => void free.push(part))
    working.catch(() => {})
  }
  try {
    for (const part of head) await write(part)
    for await (const part of parts) await write(part)
    await working
    await answering(() => file.datasync())
  } finally {
    await working.catch(() => {})
    await answering(() => file.close())
  }
}

async function openNew(path: string): Promise<FileHandle> {
  await mkdir(dirname(path), { recursive: true, mode: 0o700 })
  return open(path, 'wx', 0o600)
}

/** Puts bytes where they belong unless the very same are there. @returns whether they were */
async function putBytes(place: Place, staging: string, to: string, bytes: Buffer): Promise<boolean> {
  if (await isThere(place, to, bytes)) return true
  const file = await openNew(staging)
  try {
    await writeAll(file, bytes)
    await file.datasync()
  } finally {
    await file.close()
  }
  return giveName(place, staging, to, bytes.length)
}

/** Compares with what is there, which may have been damaged; bytes that are stored again are young again. */
async function isThere(place: Place, path: string, bytes: Buffer): Promise<boolean> {
  const there = await stat(path).catch(() => undefined)
  if (there?.size !== bytes.length) return false
  const found = await readFile(path).catch(() => undefined)
  if (found === undefined || !found.equals(bytes)) return false
  const now = new Date()
  try {
    await utimes(path, now, now)
  } catch {
    // removed meanwhile
    return false
  }
  const file = identityOf(there)
  if (Date.now() - there.mtimeMs < SURELY_SYNCED_MS && place.synced.get(path) !== file) await syncAbove(path)
  remember(place, path, file)
  return true
}

const remember = (place: Place, path: string, file: string) =>
  setNewest(place.synced, path, file, MAX_REMEMBERED)

/** Of a file, whatever its name: one that has the name later is another. */
const identityOf = ({ ino, birthtimeMs }: Stats) => `${ino} ${birthtimeMs}`

/**
 * Whether it was there already. A name appears with its bytes or not at all. What was there is replaced all the same: it may
 * have been damaged since.
 */
async function giveName(place: Place, from: string, to: string, size: number): Promise<boolean> {
  const directory = dirname(to)
  const made = await mkdir(directory, { recursive: true, mode: 0o700 })
  const there = await stat(to).catch(() => undefined)
  const given = await stat(from)
  await rename(from, to)
  if (there?.size === size) return true
  // a new directory is there after a crash when the one above it was synced, too
  const changed = [directory]
  for (let path = directory; made !== undefined && path !== dirname(made); path = dirname(path))
    changed.push(dirname(path))
  // together: the file system writes what it knows by then for all of them
  await Promise.all(changed.map(syncDirectory))
  // one that was there before may have been made by another process, which has not synced it yet
  if (made !== undefined) remember(place, directory, '')
  if (place.synced.has(directory)) remember(place, to, identityOf(given))
  return false
}

/** The directories of a stored file, up to the one that is always there: who made them may not have synced them yet. */
function syncAbove(path: string): Promise<unknown> {
  const [two, one, root] = [dirname(path), dirname(dirname(path)), dirname(dirname(dirname(path)))]
  return Promise.all([two, one, root].map(syncDirectory))
}
