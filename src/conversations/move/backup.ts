import { createHash } from 'node:crypto'
import { createReadStream, createWriteStream } from 'node:fs'
import { open, opendir, rename, rm, stat } from 'node:fs/promises'
import { basename, dirname, join, resolve } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { createGunzip } from 'node:zlib'
import { create, Parser, type ReadEntry } from 'tar'
import { ThreadbaseError } from '../../core/errors.ts'
import { syncDirectory } from '../../files/system.ts'
import { isInside, openFolder } from './layout.ts'
import type { BackupOptions, BackupReport } from './schema.ts'

const TRIES = 3

/** The archive says something else than the folder: a file changed in between, or the archive is damaged. */
class Difference extends Error {}

/**
 * Packs a folder into a `.tar.gz` that has its name only when it is complete, on the disk and was read back: every file in
 * it has the SHA-256 of the one in the folder. See the service.
 */
export async function backUpFolder(path: string, options: BackupOptions = {}): Promise<BackupReport> {
  const { dir } = await openFolder(path)
  const file = await chooseFile(dir, options.file)
  const part = join(dirname(file), `.${basename(file)}.${process.pid}.part`)
  try {
    for (let tries = 1; ; tries++) {
      try {
        await pack(dir, part, options)
        const counted = await verify(dir, part, options)
        await rename(part, file)
        await syncDirectory(dirname(file))
        return { file, ...counted, archiveBytes: (await stat(file)).size }
      } catch (error) {
        if (!(error instanceof Difference)) throw error
        if (tries >= TRIES)
          throw new ThreadbaseError(
            'conflict',
            `no backup was made: ${error.message}. Stop what writes there, and try again`,
            { dir },
          )
        options.onRetry?.(error.message)
      }
    }
  } finally {
    await rm(part, { force: true })
  }
}

/** @throws invalid_input for a place in the folder; conflict for a file that is there */
async function chooseFile(dir: string, given: string | undefined): Promise<string> {
  const time = new Date().toISOString().slice(0, 19).replaceAll(':', '-')
  const usual = `${basename(dir) || 'data'}-${time}.tar.gz`
  let file = given === undefined ? join(dirname(dir), usual) : resolve(given)
  const found = await stat(file).catch(() => undefined)
  if (found?.isDirectory()) file = join(file, usual)
  else if (found !== undefined)
    throw new ThreadbaseError('conflict', `${file} exists: a backup replaces nothing`, { file })
  const parent = dirname(file)
  if (!(await stat(parent).catch(() => undefined))?.isDirectory())
    throw new ThreadbaseError('not_found', `${parent} is no directory`, { file })
  if (await isInside(dir, file))
    throw new ThreadbaseError('invalid_input', `a backup of ${dir} cannot be in it: name another file`, {
      file,
    })
  return file
}

async function pack(dir: string, part: string, { signal }: BackupOptions): Promise<void> {
  const tar = create(
    {
      gzip: { level: 6 },
      cwd: dirname(dir),
      strict: true,
    },
    [`./${basename(dir)}`],
  )
  try {
    await pipeline(tar as unknown as AsyncIterable<Uint8Array>, createWriteStream(part, { mode: 0o600 }), {
      signal,
    })
  } catch (error) {
    const { code, tarCode } = error as { code?: string; tarCode?: string }
    // it shrank, or is gone
    if (tarCode !== undefined || code === 'EOF' || code === 'ENOENT') throw new Difference(messageOf(error))
    if (code === undefined || signal?.aborted === true) throw error
    // a full disk is told without a name
    const message = `no backup was made in ${dirname(part)}: ${messageOf(error)}`
    throw new ThreadbaseError('unavailable', message, { dir }, { cause: error })
  }
  const file = await open(part, 'r+')
  try {
    await file.sync()
  } finally {
    await file.close()
  }
}

const messageOf = (error: unknown) => (error instanceof Error ? error.message : String(error))

type Counted = { files: number; bytes: number }

/** Reads the archive and compares every file of it with the folder. @throws Difference */
async function verify(dir: string, part: string, { signal, onProgress }: BackupOptions): Promise<Counted> {
  const counted: Counted = { files: 0, bytes: 0 }
  const reader = readArchive()
  try {
    await pipeline(
      createReadStream(part),
      createGunzip(),
      async (chunks: AsyncIterable<Uint8Array>) => {
        for await (const chunk of chunks) {
          for (const packed of reader.write(chunk)) {
            await check(dir, packed)
            counted.files++
            counted.bytes += packed.bytes
            onProgress?.(counted)
          }
        }
        reader.end()
      },
      { signal },
    )
  } catch (error) {
    if (error instanceof Difference || signal?.aborted === true) throw error
    throw new Difference(`the archive cannot be read back (${messageOf(error)})`)
  }
  const there = await countFiles(dir)
  if (there === counted.files) return counted
  throw new Difference(`there are ${there} files, and ${counted.files} in the archive`)
}

type Packed = { path: string; sha256: string; bytes: number }

/** Gives the files that a piece of an archive completes. */
function readArchive() {
  let failure: unknown
  let complete: Packed[] = []
  const parser = new Parser({
    strict: true,
    onReadEntry: (entry: ReadEntry) => {
      const isFile = ['File', 'OldFile', 'ContiguousFile'].includes(entry.type)
      const hash = createHash('sha256')
      entry.on('data', (chunk) => hash.update(chunk))
      entry.on('end', () => {
        // another name of a file that is in the archive already
        const again = entry.type === 'Link'
        if (isFile || again)
          complete.push({ path: entry.path, sha256: again ? '' : hash.digest('hex'), bytes: entry.size })
      })
    },
  })
  parser.on('error', (error) => {
    failure = error
  })
  const taken = (): Packed[] => {
    if (failure !== undefined) throw failure
    const files = complete
    complete = []
    return files
  }
  return {
    write(chunk: Uint8Array): Packed[] {
      parser.write(Buffer.from(chunk))
      return taken()
    },
    end(): void {
      parser.end()
      if (taken().length > 0) throw new Error('it goes on behind its end')
    },
  }
}

async function check(dir: string, { path, sha256 }: Packed): Promise<void> {
  const file = join(dirname(dir), path)
  const hash = createHash('sha256')
  try {
    for await (const chunk of createReadStream(file)) hash.update(chunk as Uint8Array)
  } catch (error) {
    throw new Difference(`${path} cannot be read again (${(error as { code?: string }).code})`)
  }
  if (sha256 !== '' && hash.digest('hex') !== sha256) throw new Difference(`${path} was changed meanwhile`)
}

async function countFiles(dir: string): Promise<number> {
  let files = 0
  for await (const entry of await opendir(dir)) {
    if (entry.isDirectory()) files += await countFiles(join(dir, entry.name))
    else if (entry.isFile()) files++
  }
  return files
}
