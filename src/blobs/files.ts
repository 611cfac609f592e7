import { randomUUID } from 'node:crypto'
import { constants } from 'node:fs'
import { type FileHandle, lstat, open, readdir, realpath, rename, rm, rmdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { pipeline, type Readable } from 'node:stream'
import type { ThreadbaseError } from '../core/errors.ts'
import { answering, codeOf, isMissing, toUnavailable } from '../files/system.ts'
import {
  type BlobFacts,
  type Blobs,
  keyOf,
  noBlob,
  noObject,
  type ReadOptions,
  requireRange,
  requireSha256,
  requireStageable,
  requireUpload,
  type Sha256,
  type Staged,
  type StageOptions,
  type StoredBlob,
  UPLOADS,
} from './blobs.ts'
import { type Place, stage, writeAnnounced } from './file-stage.ts'
import { createVerifier } from './intake.ts'
import type { UrlSigner } from './signed-urls.ts'

const CHUNK_BYTES = 1 << 20

export type FilesOptions = {
  dir: string
  /** What signs URLs; asked when the first one is. */
  signer: () => Promise<UrlSigner>
}

/** Bytes as files below `dir`, each written under another name, synced, and then given its own. */
export function openFiles({ dir, signer }: FilesOptions): Blobs {
  const pathOf = (sha256: Sha256) => join(dir, keyOf(sha256))
  const place: Place = { dir, pathOf, synced: new Map() }
  return {
    engine: 'files',
    description: `files in ${dir}`,
    stage: (source, options = {}) => stage(place, source, options),
    stageObject: (key, options = {}) => stageFile(place, key, options),
    find: (sha256) => findFile(pathOf(sha256), sha256),
    locate: (sha256) => ({ key: keyOf(sha256) }),
    async read(sha256, options = {}) {
      requireRange(options)
      return readFile(pathOf(sha256), sha256, options)
    },
    remove: (sha256) => answering(() => rm(pathOf(sha256), { force: true })),
    removeUpload: (key) => answering(() => rm(join(dir, requireUpload(key)), { force: true })),
    list: (after) => listFiles(join(dir, 'output', 'artifacts'), after && requireSha256(after)),
    sweepStaged: (olderThanMs) => answering(() => sweep(join(dir, UPLOADS), Date.now() - olderThanMs)),
    presignGet: (sha256, options) =>
      answering(async () => {
        requireSha256(sha256)
        return (await signer()).signGet(sha256, options)
      }),
    presignPut: (blob, { expiresInS }) =>
      answering(async () => {
        requireSha256(blob.sha256)
        const key = `${UPLOADS}${randomUUID()}`
        return { key, ...(await signer()).signPut({ ...blob, key, expiresInS }) }
      }),
    local: {
      checkGet: (sha256, query) => answering(async () => (await signer()).checkGet(sha256, query)),
      put: (name, query, source) =>
        answering(async () => {
          const key = UPLOADS + name
          // the signature is of the name, too: it is one that was given out
          await receive(join(dir, key), source, (await signer()).checkPut(key, query))
        }),
    },
    close: async () => {},
  }
}

/** A name appears with all of its bytes: who completes the upload meanwhile finds none, or those. */
async function receive(path: string, source: AsyncIterable<Uint8Array>, facts: BlobFacts): Promise<void> {
  const part = `${path}.${randomUUID()}`
  try {
    await writeAnnounced(part, source, facts)
    await rename(part, path)
  } finally {
    await rm(part, { force: true })
  }
}

async function stageFile(place: Place, key: string, options: StageOptions): Promise<Staged> {
  const { dir } = place
  const { isUpload } = requireStageable(key)
  const path = join(dir, key)
  const source = await openObject(dir, path, key)
  const whenCommitted = async () => {
    if (isUpload) await rm(path, { force: true })
  }
  const stream = source.createReadStream({ highWaterMark: CHUNK_BYTES })
  try {
    return await stage(place, fromStorage(stream), options, whenCommitted)
  } finally {
    stream.destroy()
  }
}

/** A plain file that is really below the directory: what somebody else put there may be a link, or a pipe that never ends. */
async function openObject(dir: string, path: string, key: string): Promise<FileHandle> {
  const real = await Promise.all([realpath(path), realpath(dir)]).catch((error) => {
    throw isMissing(error) ? noObject(key) : toUnavailable(error)
  })
  const file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK).catch(
    (error) => {
      throw isMissing(error) || codeOf(error) === 'ELOOP' ? noObject(key) : toUnavailable(error)
    },
  )
  if (real[0] === join(real[1], key) && (await file.stat()).isFile()) return file
  await file.close()
  throw noObject(key)
}

async function* fromStorage(stream: Readable): AsyncGenerator<Uint8Array> {
  try {
    yield* stream
  } catch (error) {
    throw toUnavailable(error)
  }
}

async function findFile(path: string, sha256: Sha256): Promise<StoredBlob | undefined> {
  try {
    const { size, mtime } = await stat(path)
    return { sha256, size, modifiedAt: mtime }
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return undefined
    throw toUnavailable(error)
  }
}

async function readFile(
  path: string,
  sha256: Sha256,
  { start, end, verify }: ReadOptions,
): Promise<Readable> {
  const file = await openToRead(path, () => noBlob(sha256))
  const stream = file.createReadStream({ start, end, highWaterMark: CHUNK_BYTES / 4 })
  if (verify !== true || start !== undefined || end !== undefined) return stream
  return pipeline(stream, createVerifier(sha256), () => {})
}

function openToRead(path: string, missing: () => ThreadbaseError): Promise<FileHandle> {
  return open(path, 'r').catch((error) => {
    throw codeOf(error) === 'ENOENT' ? missing() : toUnavailable(error)
  })
}

/** In the order of the hashes, which is that of the directories. */
async function* listFiles(root: string, after = ''): AsyncGenerator<StoredBlob> {
  for (const one of await namesIn(root, after.slice(0, 2))) {
    for (const two of await namesIn(join(root, one), one === after.slice(0, 2) ? after.slice(2, 4) : '')) {
      for (const sha256 of await namesIn(join(root, one, two), '')) {
        if (sha256 <= after) continue
        const found = await findFile(join(root, one, two, sha256), sha256)
        if (found !== undefined) yield found
      }
    }
  }
}

async function namesIn(directory: string, from: string): Promise<string[]> {
  try {
    return (await readdir(directory)).filter((name) => name >= from).sort()
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return []
    throw toUnavailable(error)
  }
}

/** Also what sandboxes put into directories of their own, which go when they are empty. */
async function sweep(directory: string, before: number): Promise<number> {
  let removed = 0
  for (const name of await namesIn(directory, '')) {
    const path = join(directory, name)
    const found = await lstat(path).catch(() => undefined)
    if (found?.isDirectory() === true) {
      removed += await sweep(path, before)
      if (found.mtimeMs < before) await rmdir(path).catch(() => {})
    } else if (found !== undefined && found.mtimeMs < before) {
      await rm(path, { force: true })
      removed++
    }
  }
  return removed
}
