import { ThreadbaseError } from '../core/errors.ts'

export const codeOf = (error: unknown) => (error as NodeJS.ErrnoException | undefined)?.code

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
