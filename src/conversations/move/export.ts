import { stat, utimes } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { isThreadbaseError, ThreadbaseError } from '../../core/errors.ts'
import { canonicalJson } from '../../core/json.ts'
import { LOCAL_USER } from '../../core/scope.ts'
import type { Database } from '../../db/database.ts'
import { makeDirectory, writeAtomically } from '../../files/atomic.ts'
import type { MessageService } from '../../messages/service.ts'
import { writeUsageFile } from '../../usage/service.ts'
import { isPathSegment } from '../ids.ts'
import { fromMessage } from '../mapping.ts'
import { fileMarkOf, idOfThread, toHead } from './document.ts'
import { type CouncilFolder, openFolder, pathOf } from './layout.ts'
import { ownerOf } from './migrate.ts'
import { type Fields, isObject, Refusal, readJsonFile } from './read.ts'
import * as repo from './repo.ts'
import type { Place, WriteLine, WriteOptions, WriteReport, WriteStatus } from './schema.ts'
import { saysTheSame, type UsageSlices } from './usage.ts'

export type ExportSlices = UsageSlices &
  Pick<Database, 'forUser'> & { messages: Pick<MessageService, 'list'> }
type Run = {
  slices: ExportSlices
  folder: CouncilFolder
  options: WriteOptions
  report: WriteReport
  add: (line: WriteLine) => void
}

const PAGE = 100
const PLACES: Place[] = ['nested', 'user', 'flat']

/**
 * Writes conversations and usage into a folder: `workers` conversations are in memory at the same time. See the service.
 */
export async function exportFolder(
  slices: ExportSlices,
  workers: number,
  path: string,
  options: WriteOptions,
): Promise<WriteReport> {
  const folder = await openTarget(path)
  const none = () => ({ written: 0, equal: 0, failed: 0 })
  const report: WriteReport = {
    dir: folder.dir,
    total: await repo.countCouncils(slices.db, options.userId),
    conversations: none(),
    usage: none(),
    messages: 0,
  }
  const add = (line: WriteLine) => {
    report[line.kind === 'usage' ? 'usage' : 'conversations'][line.status]++
    options.onFile?.(line)
    options.onProgress?.(report)
  }
  const run = { slices, folder, options, report, add }
  options.onProgress?.(report)
  await forEach(workers, listThreads(run), options.signal, async ({ userId, thread }) => {
    add(await exportConversation(run, userId, thread))
  })
  await exportUsage(run)
  return report
}

/** The data directory to write into, made if there is none. */
async function openTarget(path: string): Promise<CouncilFolder> {
  await makeDirectory(path)
  const folder = await openFolder(path)
  if (folder.shape === 'data') return folder
  if (basename(folder.dir) === 'conversations') return { dir: dirname(folder.dir), shape: 'data' }
  throw new ThreadbaseError(
    'invalid_input',
    `${path} holds conversations itself: name the directory that has conversations/ in it`,
    { dir: path },
  )
}

type Item = { userId: string; thread: repo.CouncilThread }

async function* listThreads({ slices: { db, forUser }, options }: Run): AsyncGenerator<Item> {
  for await (const userId of listUsers(db, options.userId)) {
    for (let after = '00000000-0000-0000-0000-000000000000'; ; ) {
      const page = await repo.listCouncils(forUser(userId), userId, after, PAGE)
      for (const thread of page) yield { userId, thread }
      const last = page.at(-1)
      if (last === undefined || page.length < PAGE) break
      after = last.id
    }
  }
}

async function* listUsers(db: Database['db'], only: string | undefined): AsyncGenerator<string> {
  if (only !== undefined) return yield only
  for (let user = await repo.findNextUser(db, ''); user !== undefined; ) {
    yield user
    user = await repo.findNextUser(db, user)
  }
}

/** Runs work on items as they come, some at the same time. A failure stops it, and is thrown when all have ended. */
async function forEach<T>(
  workers: number,
  items: AsyncGenerator<T>,
  signal: AbortSignal | undefined,
  work: (item: T) => Promise<void>,
): Promise<void> {
  let failure: { error: unknown } | undefined
  const worker = async () => {
    try {
      while (failure === undefined && signal?.aborted !== true) {
        const { value, done } = await items.next()
        if (done === true) return
        await work(value)
      }
    } catch (error) {
      failure ??= { error }
    }
  }
  await Promise.all(Array.from({ length: workers }, worker))
  await items.return(undefined)
  if (failure !== undefined) throw failure.error
}

async function exportConversation(run: Run, userId: string, thread: repo.CouncilThread): Promise<WriteLine> {
  const id = idOfThread(thread)
  const head = toHead(thread)
  const about = { kind: 'conversation', userId, id } as const
  const file = await choosePath(run, userId, id, head, fileMarkOf(thread).place)
  if (file === undefined) {
    const reason = 'the id of its user cannot be the name of a directory'
    return { ...about, file: `conversations/${userId}/${id}.json`, status: 'failed', reason }
  }
  const messages = await readMessages(run, userId, thread.id)
  const written = await write(run, file, () => ({ ...head, messages }))
  if (written.status === 'written') {
    await utimes(join(run.folder.dir, file), thread.updatedAt, thread.updatedAt)
    run.report.messages += messages.length
  }
  return { ...about, file, ...written }
}

async function readMessages({ slices }: Run, userId: string, threadId: string): Promise<Fields[]> {
  const messages: Fields[] = []
  for (let cursor: string | undefined; ; ) {
    const page = await slices.messages.list({ userId }, threadId, { limit: 200, order: 'asc', cursor })
    for (const message of page.items) messages.push(fromMessage(message))
    cursor = page.nextCursor
    if (cursor === undefined) return messages
  }
}

/** Where it came from; else where the conversation is, or those of its user are; else where a new one goes. */
async function choosePath(
  { folder, options }: Run,
  userId: string,
  id: string,
  head: Fields,
  from: Place | undefined,
): Promise<string | undefined> {
  // a move must find the same owner again
  const places = PLACES.filter((place) =>
    place === 'flat' ? isOwner(userId, head, options.userId) : isPathSegment(userId),
  )
  const to = (place: Place) => pathOf(folder, place, userId, id)
  if (from !== undefined && places.includes(from)) return to(from)
  const usual = userId === LOCAL_USER && places.includes('flat') ? 'flat' : places[0]
  if (usual === undefined || from !== undefined) return usual && to(usual)
  for (const place of places) if (await exists(folder, to(place))) return to(place)
  for (const place of places) {
    const path = to(place)
    if (place !== 'flat' && path !== undefined && (await exists(folder, dirname(path)))) return path
  }
  return to(usual)
}

function isOwner(userId: string, head: Fields, only: string | undefined): boolean {
  try {
    return ownerOf(head, only) === userId
  } catch {
    return false
  }
}

async function exists({ dir }: CouncilFolder, path: string | undefined): Promise<boolean> {
  return path !== undefined && (await stat(join(dir, path)).catch(() => undefined)) !== undefined
}

type Written = { status: WriteStatus; reason?: string }

/** Writes a file unless there is one with equal JSON; one with other content is left, unless it is to be replaced. */
async function write(
  { folder, options }: Run,
  file: string,
  make: (found: unknown) => Fields,
): Promise<Written> {
  const path = join(folder.dir, file)
  try {
    const found = await readExisting(path)
    const value = make(found?.value)
    if (found !== undefined) {
      if (found.value !== undefined && canonicalJson(found.value) === canonicalJson(value))
        return { status: 'equal' }
      if (options.force !== true)
        return { status: 'failed', reason: 'there is a file with other content, which --force replaces' }
    }
    await makeDirectory(dirname(path))
    await writeAtomically(path, `${JSON.stringify(value, null, 2)}`)
    return { status: 'written' }
  } catch (error) {
    // of this file alone; a full disk is told of each
    if (isThreadbaseError(error)) return { status: 'failed', reason: error.message }
    throw error
  }
}

/** Undefined when there is no such file; `value` is undefined for one that is no JSON. */
async function readExisting(path: string): Promise<{ value: unknown } | undefined> {
  if ((await stat(path).catch(() => undefined)) === undefined) return undefined
  try {
    return { value: (await readJsonFile(path)).value }
  } catch (error) {
    if (error instanceof Refusal) return { value: undefined }
    throw error
  }
}

async function exportUsage(run: Run): Promise<void> {
  const { slices, options } = run
  for await (const { userId, record } of slices.usage.records()) {
    if (options.signal?.aborted === true) return
    if (options.userId !== undefined && userId !== options.userId) continue
    const file = `usage/${userId}/usage.json`
    const about = { file, kind: 'usage', userId } as const
    if (!isPathSegment(userId)) {
      run.add({ ...about, status: 'failed', reason: 'the id of the user cannot be the name of a directory' })
      continue
    }
    const toFile = (found: unknown) => {
      const base = isObject(found) ? found : record.file
      if (!isObject(base)) return writeUsageFile(userId, record)
      return saysTheSame(slices, userId, base, record) ? base : writeUsageFile(userId, record, base)
    }
    run.add({ ...about, ...(await write(run, file, toFile)) })
  }
}
