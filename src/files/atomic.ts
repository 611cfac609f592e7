import { randomBytes } from 'node:crypto'
import { lstatSync } from 'node:fs'
import { type FileHandle, lstat, mkdir, open, rename, rm } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { answering, isMissing, syncDirectory, writeAll } from './system.ts'

const TEMPORARY = /^\..+\.[0-9a-f]{16}\.tmp$/
/** Beside a lock: what its taker writes before it has the name, and rights to remove a dead owner's. */
const OF_LOCKS = /^\.(lock-of-|.+\.lock\.takeover\.)[0-9a-z-]{20,}$/
const OLD_MS = 3_600_000

export type WriteOptions = {
  /** Of a new file; one that is replaced keeps its own. Default: its owner's alone. */
  mode?: number
  /** Asked when all is written: false leaves the old file in place. */
  confirm?: () => Promise<boolean>
}

/**
 * Gives a file this content, in a directory that is there: whoever reads it, also after a power cut, has the old content
 * or the new one. When it returns, the new one is on the disk.
 * @returns false when `confirm` said no
 * @throws unavailable when the file system refuses; then the old file is whole and nothing else is left
 */
export function writeAtomically(
  path: string,
  data: string | Uint8Array,
  { mode = 0o600, confirm }: WriteOptions = {},
): Promise<boolean> {
  const directory = dirname(path)
  // in the same directory: a name is given within one file system only
  const part = join(directory, `.${basename(path)}.${randomBytes(8).toString('hex')}.tmp`)
  return answering(async () => {
    try {
      const old = await statOrNothing(path)
      const file = await open(part, 'wx', mode)
      try {
        if (old !== undefined) await takeAfter(file, old)
        // its bytes before its name
        await writeAll(file, typeof data === 'string' ? Buffer.from(data) : data)
        await file.sync()
      } finally {
        await file.close()
      }
      if (confirm !== undefined && !(await confirm())) {
        await rm(part, { force: true })
        return false
      }
      await rename(part, path)
    } catch (error) {
      await rm(part, { force: true }).catch(() => {})
      throw error
    }
    await syncDirectory(directory)
    return true
  })
}

type Kept = { mode: number; uid: number; gid: number }

/** Who could read the old file can read the new one. */
async function takeAfter(file: FileHandle, old: Kept): Promise<void> {
  const own = await file.stat()
  // only root may give files away; what cannot be given stays with us
  if (own.uid !== old.uid || own.gid !== old.gid) await file.chown(old.uid, old.gid).catch(() => {})
  if ((own.mode & 0o777) !== (old.mode & 0o777)) await file.chmod(old.mode & 0o777)
}

async function statOrNothing(path: string) {
  try {
    return await lstat(path)
  } catch (error) {
    if (isMissing(error)) return undefined
    throw error
  }
}

/** Removes a file for good. False when there was none. */
export function removeDurably(path: string): Promise<boolean> {
  return answering(async () => {
    try {
      await rm(path)
    } catch (error) {
      if (isMissing(error)) return false
      throw error
    }
    await syncDirectory(dirname(path))
    return true
  })
}

/** Makes a directory and those above it, which are there after a crash, too. */
export function makeDirectory(path: string, mode = 0o700): Promise<void> {
  return answering(async () => {
    const made = await mkdir(path, { recursive: true, mode })
    if (made === undefined) return
    for (let changed = dirname(path); ; changed = dirname(changed)) {
      await syncDirectory(changed)
      if (changed === dirname(made)) return
    }
  })
}

/**
 * Removes what killed processes left in a directory while they wrote files or took locks, once it is an hour old.
 * @param names those in the directory, whatever they are
 */
export async function sweepLeftovers(directory: string, names: Iterable<string>): Promise<void> {
  for (const name of names) {
    if (!TEMPORARY.test(name) && !OF_LOCKS.test(name)) continue
    const path = join(directory, name)
    const found = lstatSync(path, { throwIfNoEntry: false })
    if (found?.isFile() === true && found.mtimeMs < Date.now() - OLD_MS)
      await rm(path, { force: true }).catch(() => {})
  }
}
