import { type FileHandle, open } from 'node:fs/promises'
import { ThreadbaseError } from '../core/errors.ts'

export const codeOf = (error: unknown) => (error as NodeJS.ErrnoException | undefined)?.code

/** That there is nothing of this name. */
export const isMissing = (error: unknown) => ['ENOENT', 'ENOTDIR'].includes(String(codeOf(error)))

/** @throws unavailable for what the file system refuses */
export async function answering<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (error) {
    throw toUnavailable(error)
  }
}

/** What the file system refuses is the storage's fault; what is no error of the system stays as it is. */
export function toUnavailable(error: unknown): unknown {
  const code = codeOf(error)
  const isSystem = typeof (error as { errno?: unknown } | undefined)?.errno === 'number'
  if (!isSystem || error instanceof ThreadbaseError) return error
  return new ThreadbaseError(
    'unavailable',
    `the storage of files failed (${code})`,
    { code },
    { cause: error },
  )
}

export async function writeAll(file: FileHandle, bytes: Uint8Array): Promise<void> {
  for (let done = 0; done < bytes.length; ) {
    const { bytesWritten } = await file.write(bytes, done)
    done += bytesWritten
  }
}

/** Names that were given or taken in a directory are so after a crash, too. */
export async function syncDirectory(path: string): Promise<void> {
  const directory = await open(path, 'r')
  try {
    await directory.sync()
  } finally {
    await directory.close()
  }
}
