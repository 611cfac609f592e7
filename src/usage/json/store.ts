import { readdir, readFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { ThreadbaseError } from '../../core/errors.ts'
import { parseJson } from '../../core/json.ts'
import { isPathSegment } from '../../core/path-segment.ts'
import { makeDirectory, writeAtomically } from '../../files/atomic.ts'
import { withFileLock } from '../../files/lock.ts'
import { readUsageFile, type UsageFile, writeUsageFile } from '../files.ts'
import type { UsageRecord } from '../schema.ts'

/** One `usage.json`; without a file both are undefined. */
export type Found = { file?: UsageFile; record?: UsageRecord }

/** The files of `DIR/usage/{user_id}/usage.json`. */
export type UsageFiles = ReturnType<typeof openUsageFiles>

const FILE = 'usage.json'
// no name of a council's file: those end in .json
const LOCK = '.usage.json.lock'

export function openUsageFiles(dir: string) {
  const root = join(dir, 'usage')
  return {
    read: (userId: string): Promise<Found> => read(pathOf(root, userId), userId),

    /**
     * Reads and writes with nobody in between, whichever process they are in.
     * @param work the record to write, or undefined to leave the file as it is
     */
    async change<T>(userId: string, work: (found: Found) => { write?: UsageRecord; result: T }): Promise<T> {
      const path = pathOf(root, userId)
      await makeDirectory(dirname(path))
      return withFileLock(join(dirname(path), LOCK), async () => {
        const found = await read(path, userId)
        const { write, result } = work(found)
        if (write !== undefined) {
          const file = writeUsageFile(userId, write, found.file)
          // as councils write them
          await writeAtomically(path, JSON.stringify(file, undefined, 2))
        }
        return result
      })
    },

    /** Users who have a directory, by id. */
    async listUsers(): Promise<string[]> {
      const entries = await answering('usage', () => readdir(root, { withFileTypes: true }))
      return (entries ?? [])
        .filter((entry) => entry.isDirectory() && isPathSegment(entry.name))
        .map(({ name }) => name)
        .sort()
    },
  }
}

/** @throws invalid_input for an id that would lead elsewhere */
function pathOf(root: string, userId: string): string {
  if (isPathSegment(userId)) return join(root, userId, FILE)
  throw new ThreadbaseError('invalid_input', 'the id of the user cannot be the name of a directory', {
    field: 'userId',
  })
}

async function read(path: string, userId: string): Promise<Found> {
  const place = `usage/${userId}/${FILE}`
  const text = await answering(place, () => readFile(path, 'utf8'))
  if (text === undefined) return {}
  try {
    const file = parseJson(text)
    return { record: readUsageFile(file), file: file as UsageFile }
  } catch (cause) {
    // not the caller's input: nothing may be counted until somebody has mended it
    const problem = cause instanceof Error ? cause.message : String(cause)
    throw new ThreadbaseError(
      'unavailable',
      `${place} cannot be read: ${problem}`,
      { file: place },
      { cause },
    )
  }
}

/** Undefined when there is no such file. @throws unavailable when the file system refuses */
async function answering<T>(place: string, work: () => Promise<T>): Promise<T | undefined> {
  try {
    return await work()
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException
    if (code === 'ENOENT') return undefined
    throw new ThreadbaseError('unavailable', `${place} cannot be read (${code})`, { code }, { cause })
  }
}
