import { createWriteStream } from 'node:fs'
import { realpath, rename, rm, stat } from 'node:fs/promises'
import type { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { ThreadbaseError } from '../core/errors.ts'

/** The code of an error of the system, such as ENOSPC. */
export const codeOf = (error: unknown) => (error as { code?: string } | undefined)?.code

/**
 * Writes a file that has its name when it is whole, and not before; when it is ended by the signal, there is none. A pipe
 * or a device is written to as it is.
 * @param mode of the file
 * @throws invalid_input when the file cannot be written
 */
export async function writeWholeFile(
  path: string,
  pieces: Readable,
  { signal, mode = 0o666 }: { signal: AbortSignal; mode?: number },
): Promise<void> {
  try {
    const { place, isWhole } = await findPlace(path)
    if (!isWhole) await pipeline(pieces, createWriteStream(place), { signal })
    else await writeBeside(place, pieces, { signal, mode })
  } catch (error) {
    pieces.destroy()
    if (signal.aborted) return
    const code = codeOf(error)
    if (error instanceof ThreadbaseError || code === undefined) throw error
    throw new ThreadbaseError(
      'invalid_input',
      `${path} cannot be written (${code})`,
      { path },
      { cause: error },
    )
  }
}

/** Where a link leads to; what is no plain file (a pipe, a device) is written to and never replaced. */
async function findPlace(path: string): Promise<{ place: string; isWhole: boolean }> {
  const found = await stat(path).catch(() => undefined)
  if (found === undefined) return { place: path, isWhole: true }
  if (found.isDirectory()) throw Object.assign(new Error('it is a directory'), { code: 'EISDIR' })
  return { place: await realpath(path), isWhole: found.isFile() }
}

async function writeBeside(
  path: string,
  pieces: Readable,
  { signal, mode }: { signal: AbortSignal; mode: number },
): Promise<void> {
  const part = `${path}.${process.pid}.part`
  try {
    await pipeline(pieces, createWriteStream(part, { mode }), { signal })
    await rename(part, path)
  } catch (error) {
    await rm(part, { force: true })
    throw error
  }
}

/** Ends quietly when the reader has had enough (`… | head`) or the signal says so. @returns whether all was written */
export async function writeToStream(
  stream: NodeJS.WritableStream,
  pieces: Readable,
  signal: AbortSignal,
): Promise<boolean> {
  try {
    await pipeline(pieces, stream, { end: false, signal })
    return true
  } catch (error) {
    if (codeOf(error) !== 'EPIPE' && codeOf(error) !== 'ERR_STREAM_PREMATURE_CLOSE' && !signal.aborted)
      throw error
    return false
  }
}
