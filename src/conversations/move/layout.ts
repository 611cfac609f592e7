import type { Dirent } from 'node:fs'
import { opendir, realpath, stat } from 'node:fs/promises'
import { basename, dirname, join, sep } from 'node:path'
import { ThreadbaseError } from '../../core/errors.ts'
import { userOf } from '../../core/scope.ts'
import { isPathSegment } from '../ids.ts'
import type { Place } from './schema.ts'

/** A folder of an existing council. */
export type CouncilFolder = {
  /** Without symbolic links. */
  dir: string
  /** `data`: has conversations/, usage/ and directories of users. `conversations`: is such a conversations/ itself. */
  shape: 'data' | 'conversations'
}

/** Something that is in the folder. `path` is below it, with slashes. */
export type Found =
  | { kind: 'conversation'; path: string; place: Place /** Not in a flat file. */; user?: string; id: string }
  | { kind: 'usage'; path: string; user: string }
  | { kind: 'other'; path: string; status: 'skipped' | 'failed'; reason: string }

const NO_USERS = new Set(['conversations', 'usage'])
// what editors and careful writers leave beside a file
const TEMPORARY = /~$|\.(tmp|part|lock|swp)$/

/**
 * The folder of a council that a path names: the directory with conversations/ in it, the one above it (`data/` in it),
 * or conversations/ itself.
 * @throws not_found, or invalid_input when the path is no directory
 */
export async function openFolder(path: string): Promise<CouncilFolder> {
  const dir = await realDirectory(path)
  if (await hasCouncil(dir)) return { dir, shape: 'data' }
  const data = join(dir, 'data')
  if (await hasCouncil(data)) return { dir: await realpath(data), shape: 'data' }
  // in a data directory no document lies at the top
  if (basename(dir) === 'conversations' || (await hasDocuments(dir))) return { dir, shape: 'conversations' }
  return { dir, shape: 'data' }
}

async function realDirectory(path: string): Promise<string> {
  try {
    const dir = await realpath(path)
    if ((await stat(dir)).isDirectory()) return dir
  } catch (error) {
    const { code } = error as { code?: string }
    if (code === 'ENOENT') throw new ThreadbaseError('not_found', `${path} does not exist`, { dir: path })
    if (code !== 'ENOTDIR')
      throw new ThreadbaseError('invalid_input', `${path} cannot be read (${code})`, { dir: path })
  }
  throw new ThreadbaseError('invalid_input', `${path} is no directory`, { dir: path })
}

async function hasCouncil(dir: string): Promise<boolean> {
  for (const name of NO_USERS) {
    const found = await stat(join(dir, name)).catch(() => undefined)
    if (found?.isDirectory()) return true
  }
  return false
}

async function hasDocuments(dir: string): Promise<boolean> {
  for await (const entry of await opendir(dir)) if (entry.isFile() && isDocument(entry.name)) return true
  return false
}

/** Where a conversation of a user is, or would be. */
export function pathOf({ shape }: CouncilFolder, place: Place, user: string, id: string): string | undefined {
  const top = shape === 'data' ? 'conversations/' : ''
  if (place === 'flat') return `${top}${id}.json`
  if (place === 'nested') return `${top}${user}/${id}.json`
  return shape === 'data' && !NO_USERS.has(user) ? `${user}/${id}.json` : undefined
}

/**
 * Everything in the folder, directory by directory, as the file system lists it: nothing is gathered.
 * @param only the user whose files to list
 */
export async function* walk(folder: CouncilFolder, only?: string): AsyncGenerator<Found> {
  if (folder.shape === 'conversations') return yield* walkConversations(folder, '', only)
  for await (const entry of list(folder, '')) {
    if (entry.type === 'problem') yield entry.found
    else if (entry.type === 'file')
      yield skipped(entry.name, 'neither a conversation nor a usage file has its place here')
    else if (entry.name === 'conversations') yield* walkConversations(folder, 'conversations/', only)
    else if (entry.name === 'usage') yield* walkUsage(folder, only)
    else yield* walkUser(folder, '', entry.name, 'user', only)
  }
}

async function* walkConversations(folder: CouncilFolder, top: string, only?: string): AsyncGenerator<Found> {
  for await (const entry of list(folder, top)) {
    if (entry.type === 'problem') yield entry.found
    else if (entry.type === 'directory') yield* walkUser(folder, top, entry.name, 'nested', only)
    else yield toConversation(`${top}${entry.name}`, entry.name, { place: 'flat' })
  }
}

async function* walkUser(
  folder: CouncilFolder,
  top: string,
  user: string,
  place: Place,
  only?: string,
): AsyncGenerator<Found> {
  const directory = `${top}${user}/`
  const refusal = refuseUser(directory, user, only)
  if (refusal !== undefined) return yield refusal
  for await (const entry of list(folder, directory)) {
    const path = `${directory}${entry.name}`
    if (entry.type === 'problem') yield entry.found
    else if (entry.type === 'directory')
      yield skipped(`${path}/`, 'a directory where conversations are files')
    else yield toConversation(path, entry.name, { place, user })
  }
}

async function* walkUsage(folder: CouncilFolder, only?: string): AsyncGenerator<Found> {
  for await (const entry of list(folder, 'usage/')) {
    if (entry.type === 'problem') yield entry.found
    else if (entry.type === 'file')
      yield skipped(`usage/${entry.name}`, 'usage is in usage/{user}/usage.json')
    else yield* walkUsageOf(folder, entry.name, only)
  }
}

async function* walkUsageOf(folder: CouncilFolder, user: string, only?: string): AsyncGenerator<Found> {
  const directory = `usage/${user}/`
  const refusal = refuseUser(directory, user, only)
  if (refusal !== undefined) return yield refusal
  for await (const entry of list(folder, directory)) {
    const path = `${directory}${entry.name}`
    if (entry.type === 'problem') yield entry.found
    else if (entry.type === 'file' && entry.name === 'usage.json') yield { kind: 'usage', path, user }
    else yield skipped(entry.type === 'file' ? path : `${path}/`, 'usage is in usage/{user}/usage.json')
  }
}

const isDocument = (name: string) => name.endsWith('.json') && !name.startsWith('.')
const skipped = (path: string, reason: string): Found => ({ kind: 'other', path, status: 'skipped', reason })
const failed = (path: string, reason: string): Found => ({ kind: 'other', path, status: 'failed', reason })

function refuseUser(directory: string, user: string, only: string | undefined): Found | undefined {
  if (only !== undefined && user !== only) return skipped(directory, 'of another user')
  try {
    userOf({ userId: user })
  } catch {
    return failed(directory, 'its name cannot be the id of a user')
  }
}

function toConversation(path: string, name: string, where: { place: Place; user?: string }): Found {
  if (!isDocument(name)) return skipped(path, 'its name does not end in .json')
  const id = name.slice(0, -'.json'.length)
  if (isPathSegment(id)) return { kind: 'conversation', path, ...where, id }
  return failed(path, 'its name cannot be the id of a conversation: 1 to 200 bytes')
}

type Entry = { name: string } & ({ type: 'file' | 'directory' } | { type: 'problem'; found: Found })

/** The entries of a directory; hidden and temporary ones are left out. */
async function* list({ dir }: CouncilFolder, below: string): AsyncGenerator<Entry> {
  let entries: AsyncIterable<Dirent>
  try {
    entries = await opendir(join(dir, below), { bufferSize: 256 })
  } catch (error) {
    const reason = `cannot be read (${(error as { code?: string }).code})`
    return yield { name: '', type: 'problem', found: failed(below, reason) }
  }
  for await (const entry of entries) {
    if (entry.name.startsWith('.')) continue
    const found = await toEntry(dir, `${below}${entry.name}`, entry)
    if (found.type !== 'file' || !TEMPORARY.test(found.name)) yield found
  }
}

/** Links are followed within the folder only. */
async function toEntry(dir: string, path: string, entry: Dirent): Promise<Entry> {
  const { name } = entry
  if (entry.isFile()) return { name, type: 'file' }
  if (entry.isDirectory()) return { name, type: 'directory' }
  const problem = (found: Found): Entry => ({ name, type: 'problem', found })
  try {
    const target = await realpath(join(dir, path))
    const found = await stat(target)
    if (entry.isSymbolicLink() && !target.startsWith(dir.endsWith(sep) ? dir : `${dir}${sep}`))
      return problem(skipped(path, 'a symbolic link out of the folder, which is not followed'))
    if (found.isFile()) return { name, type: 'file' }
    if (found.isDirectory()) return { name, type: 'directory' }
  } catch (error) {
    const { code } = error as { code?: string }
    return problem(
      failed(path, code === 'ENOENT' ? 'a symbolic link to nothing' : `cannot be read (${code})`),
    )
  }
  return problem(skipped(path, 'neither a file nor a directory'))
}

/** Whether a path is the directory or below it. */
export async function isInside(dir: string, path: string): Promise<boolean> {
  const parent = await realpath(dirname(path))
  return parent === dir || parent.startsWith(`${dir}${sep}`)
}
