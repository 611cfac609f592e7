import { statSync } from 'node:fs'
import { join } from 'node:path'
import { ThreadbaseError } from '../../core/errors.ts'
import { canonicalJson } from '../../core/json.ts'
import { LOCAL_USER, userOf } from '../../core/scope.ts'
import { isPathSegment } from '../ids.ts'
import { type FileConversation, toFileConversation } from './document.ts'
import { type CouncilFolder, type Found, openFolder, pathOf, walk } from './layout.ts'
import { isObject, type ReadFile, Refusal, readJsonFile } from './read.ts'
import type { MoveLine, MoveOptions, MoveReport, Place } from './schema.ts'
import { type Slices, storeConversations } from './store.ts'
import { readUsage, storeUsage, type UsageOfFile, type UsageSlices } from './usage.ts'

// what a worker reads before it stores it
const MAX_MESSAGES = 1_000
const MAX_CHARS = 4_000_000
const MAX_FILES = 500

/** Of the files of one conversation, the one that counts: the first of these places. */
const ORDER: Place[] = ['nested', 'user', 'flat']

export type MoveSlices = Slices & UsageSlices
type Run = { slices: MoveSlices; folder: CouncilFolder; options: MoveOptions }
type Batch = {
  conversations: FileConversation[]
  usage: UsageOfFile[]
  messages: number
  chars: number
  /** Ends the turn of who reads a large file. */
  release?: () => void
}

/**
 * Moves a folder into the database: workers read files until they have a batch and store it, so that memory does not grow
 * with the folder. See the service.
 */
export async function migrateFolder(
  slices: MoveSlices,
  workers: number,
  path: string,
  options: MoveOptions,
): Promise<MoveReport> {
  const folder = await openFolder(path)
  const log = createLog(folder.dir, options)
  for await (const { kind } of walk(folder, options.userId)) {
    if (options.signal?.aborted === true) return log.report
    if (kind !== 'other') log.report.files++
  }
  options.onProgress?.(log.report)
  const run = { slices, folder, options }
  const entries = walk(folder, options.userId)
  const large = createTurns()
  let failure: { error: unknown } | undefined
  const stopped = () => failure !== undefined || options.signal?.aborted === true
  const work = async () => {
    try {
      while (!stopped()) {
        const batch: Batch = { conversations: [], usage: [], messages: 0, chars: 0 }
        try {
          const more = await fill(run, batch, entries, { log, large, stopped })
          for (const line of await storeBatch(run, batch)) log.add(line)
          if (!more) return
        } finally {
          batch.release?.()
        }
      }
    } catch (error) {
      failure ??= { error }
    }
  }
  await Promise.all(Array.from({ length: workers }, work))
  if (failure !== undefined) throw failure.error
  return log.report
}

type Log = ReturnType<typeof createLog>
type Helpers = { log: Log; large: () => Promise<() => void>; stopped: () => boolean }

/** Reads files until the batch is full. @returns whether there may be more */
async function fill(
  run: Run,
  batch: Batch,
  entries: AsyncGenerator<Found>,
  { log, large, stopped }: Helpers,
): Promise<boolean> {
  const isFull = () =>
    batch.messages >= MAX_MESSAGES || batch.chars >= MAX_CHARS || batch.conversations.length >= MAX_FILES
  while (!isFull() && batch.release === undefined && batch.usage.length < MAX_FILES) {
    if (stopped()) return false
    const { value: found, done } = await entries.next()
    if (done === true) return false
    const onLarge = async () => {
      batch.release ??= await large()
    }
    const line = await take(run, batch, found, async (path) => {
      const read = await readJsonFile(join(run.folder.dir, path), onLarge)
      log.report.bytes += read.bytes
      return read
    })
    if (line !== undefined) log.add(line)
  }
  return true
}

type Read = (path: string) => Promise<ReadFile>

/** Puts what was found into the batch, or says why not. */
async function take(run: Run, batch: Batch, found: Found, read: Read): Promise<MoveLine | undefined> {
  if (found.kind === 'other')
    return { file: found.path, kind: 'other', status: found.status, reason: found.reason }
  const about = { file: found.path, kind: found.kind, userId: found.user }
  try {
    if (found.kind === 'usage') {
      batch.usage.push(readUsage(found.path, found.user, (await read(found.path)).value))
      return undefined
    }
    const taken = await takeConversation(run, found, read)
    if ('status' in taken) return taken
    batch.conversations.push(taken)
    batch.messages += taken.messages.length
    batch.chars += taken.chars
    return undefined
  } catch (error) {
    if (!(error instanceof Refusal)) throw error
    const { message: reason, at, other } = error
    const id = found.kind === 'conversation' ? { id: found.id } : {}
    return { ...about, ...id, status: 'failed', reason, at, other }
  }
}

type FoundConversation = Extract<Found, { kind: 'conversation' }>

/** @throws Refusal */
async function takeConversation(
  { folder, options: { userId: only } }: Run,
  found: FoundConversation,
  read: Read,
): Promise<FileConversation | MoveLine> {
  const { path: file, place, id } = found
  const document = await read(file)
  const userId = found.user ?? ownerOf(document.value, only)
  const skip = (reason: string, other?: string): MoveLine => ({
    file,
    kind: 'conversation',
    status: 'skipped',
    userId,
    id,
    reason,
    other,
  })
  if (only !== undefined && userId !== only) return skip('of another user')
  const first = findFirst(folder, place, userId, id)
  if (first !== undefined) {
    const other = await read(first).catch((error: Error) => {
      throw new Refusal(`${first} has the same id and ${error.message}`, { other: first })
    })
    if (canonicalJson(other.value) === canonicalJson(document.value))
      return skip(`the same conversation as ${first}`, first)
    throw new Refusal(`${first} has the same id and other content`, { other: first })
  }
  return toFileConversation(document, { file, place, userId, id })
}

/** Whom a file in conversations/ belongs to: its `user_id`, else the user who is asked for, else the local one. */
export function ownerOf(document: unknown, only: string | undefined): string {
  const named = isObject(document) ? document.user_id : undefined
  if (typeof named !== 'string' || named === '') return only ?? LOCAL_USER
  try {
    return userOf({ userId: named })
  } catch {
    throw new Refusal('its user_id cannot be the id of a user')
  }
}

/** Another file of this conversation, in a place that comes before. */
function findFirst(folder: CouncilFolder, place: Place, userId: string, id: string): string | undefined {
  if (!isPathSegment(userId)) return undefined
  for (const before of ORDER.slice(0, ORDER.indexOf(place))) {
    const path = pathOf(folder, before, userId, id)
    if (path === undefined) continue
    if (isFile(join(folder.dir, path))) return path
  }
  return undefined
}

function isFile(path: string): boolean {
  try {
    // most are not there, and an error for each would take longer than the look
    return statSync(path, { throwIfNoEntry: false })?.isFile() === true
  } catch {
    return false
  }
}

async function storeBatch({ slices, options }: Run, batch: Batch): Promise<MoveLine[]> {
  const dryRun = options.dryRun === true
  const lines: MoveLine[] = []
  for (const [userId, conversations] of Map.groupBy(batch.conversations, ({ userId }) => userId))
    lines.push(...(await storeConversations(slices, userId, conversations, dryRun)))
  if (batch.usage.length > 0) lines.push(...(await storeUsage(slices, batch.usage, dryRun)))
  return lines
}

function createLog(dir: string, { dryRun = false, onFile, onProgress }: MoveOptions) {
  const none = () => ({ moved: 0, extended: 0, known: 0, skipped: 0, failed: 0 })
  const report: MoveReport = {
    dir,
    dryRun,
    files: 0,
    done: 0,
    conversations: none(),
    usage: none(),
    others: none(),
    messages: 0,
    bytes: 0,
  }
  const counts = { conversation: report.conversations, usage: report.usage, other: report.others }
  return {
    report,
    add(line: MoveLine): void {
      counts[line.kind][line.status]++
      if (line.kind !== 'other') report.done++
      report.messages += line.messages ?? 0
      onFile?.(line)
      onProgress?.(report)
    },
  }
}

/** Gives turns, one at a time; each lasts until it is given back. */
function createTurns(): () => Promise<() => void> {
  let last: Promise<void> = Promise.resolve()
  return async () => {
    const before = last
    const { promise, resolve } = Promise.withResolvers<void>()
    last = promise
    await before
    return resolve
  }
}

/** @throws invalid_input */
export function requireConcurrency(concurrency: number | undefined, fallback: number): number {
  if (concurrency === undefined) return fallback
  if (Number.isInteger(concurrency) && concurrency >= 1 && concurrency <= 64) return concurrency
  throw new ThreadbaseError('invalid_input', 'concurrency must be a whole number from 1 to 64', {
    field: 'concurrency',
  })
}
