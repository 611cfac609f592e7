import { lstatSync } from 'node:fs'
import { lstat, readdir } from 'node:fs/promises'
import { join, relative } from 'node:path'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { isThreadbaseError, type ThreadbaseError } from '../../core/errors.ts'
import type { Logger } from '../../core/log.ts'
import { sweepLeftovers } from '../../files/atomic.ts'
import { codeOf, isMissing } from '../../files/system.ts'
import { isPathSegment } from '../ids.ts'
import { parseTime, writeTime } from '../mapping.ts'
import { type ConversationSummary, NEW_TITLE } from '../schema.ts'
import { isSame, readObject, type Stamp, stampOf } from './document.ts'

/** What is kept of a file; without `summary` it is no conversation. */
export type Entry = {
  stamp: Stamp
  /** Undefined: it may have changed since without looking so. */
  settled: boolean
  summary?: ConversationSummary
  /** Of `created_at`, to sort by; of what is no time, before all others. */
  time: number
  /** The `user_id` that the file names. */
  owner?: string
}

export type DirectoryIndex = {
  /** Another one when an entry does not say the same as before. */
  version: () => number
  entries: ReadonlyMap<string, Entry>
  /** Looks at every file: afterwards the entries say what the files said at some moment since the call. */
  refresh: () => Promise<void>
}

const EXTENSION = '.json'
// two changes within the clock's grain look like one
const GRAIN_MS = 2_000
// files looked at before others get their turn: some milliseconds
const SLICE = 1_000
const READERS = 8
const QUIETLY = { throwIfNoEntry: false } as const

export type IndexOptions = {
  /** What names of files in messages are relative to. */
  root: string
  log: Logger
  /** A number that no index had before. */
  nextVersion: () => number
}

/** The summaries of a directory's files. */
export function createDirectoryIndex(
  directory: string,
  { root, log, nextVersion }: IndexOptions,
): DirectoryIndex {
  const entries = new Map<string, Entry>()
  let version = nextVersion()
  let listing: { stamp: Stamp; settled: boolean; ids: string[] } | undefined

  async function listIds(): Promise<string[]> {
    const now = Date.now()
    const found = await lstatDirectory(directory)
    if (found === undefined) {
      listing = undefined
      forgetAllBut(new Set())
      return []
    }
    const stamp = stampOf(found)
    // names come and go with the time of their directory
    if (listing?.settled && isSame(listing.stamp, stamp)) return listing.ids
    const names = await readdir(directory)
    await sweepLeftovers(
      directory,
      names.filter((name) => name.startsWith('.')),
    )
    const ids = names
      .filter((name) => name.endsWith(EXTENSION))
      .map((name) => name.slice(0, -EXTENSION.length))
      .filter(isPathSegment)
    forgetAllBut(new Set(ids))
    listing = { stamp, settled: isSettled(stamp, now), ids }
    return ids
  }

  async function look(): Promise<void> {
    const ids = await listIds()
    const changed: string[] = []
    for (const [i, id] of ids.entries()) {
      if (i % SLICE === SLICE - 1) await nextTurn()
      // join() would take as long as a fifth of the look
      const stats = lstatSync(`${directory}/${id}${EXTENSION}`, QUIETLY)
      const known = entries.get(id)
      if (stats?.isFile() !== true) {
        forget(id)
        continue
      }
      if (known === undefined || !known.settled || !isSame(known.stamp, stats)) changed.push(id)
    }
    await readAll(changed)
  }

  function forgetAllBut(ids: ReadonlySet<string>): void {
    for (const id of entries.keys()) if (!ids.has(id)) forget(id)
  }

  function forget(id: string): void {
    if (entries.delete(id)) version = nextVersion()
  }

  async function readAll(ids: string[]): Promise<void> {
    let next = 0
    const lane = async () => {
      while (next < ids.length) await readOne(ids[next++] as string)
    }
    await Promise.all(Array.from({ length: Math.min(READERS, ids.length) }, lane))
  }

  async function readOne(id: string): Promise<void> {
    const now = Date.now()
    const known = entries.get(id)
    const path = join(directory, id + EXTENSION)
    const file = relative(root, path)
    try {
      // exact numbers matter to no summary
      const read = await readObject(path, file, JSON.parse)
      if (read === undefined) entries.delete(id)
      else entries.set(id, toEntry(id, read.value, read.stamp, now))
    } catch (error) {
      const stats = isUnreadable(error) ? lstatSync(path, QUIETLY) : undefined
      if (stats === undefined) throw error
      const stamp = stampOf(stats)
      entries.set(id, { stamp, settled: isSettled(stamp, now), time: 0 })
      const isNew = known === undefined || known.summary !== undefined || !isSame(known.stamp, stamp)
      const { message, details } = error as ThreadbaseError
      if (isNew) log.warn({ file, ...details }, `left out of the list: ${message}`)
    }
    if (!saysTheSame(known, entries.get(id))) version = nextVersion()
  }

  return { version: () => version, entries, refresh: coalesce(look) }
}

/** Callers that come while it works share the next run: what they were told would else be older than their call. */
function coalesce(work: () => Promise<void>): () => Promise<void> {
  let running: Promise<void> | undefined
  let next: Promise<void> | undefined
  const start = () => {
    next = undefined
    running = work().finally(() => {
      running = undefined
    })
    return running
  }
  return () => {
    if (running === undefined) return start()
    next ??= running.then(start, start)
    return next
  }
}

function toEntry(id: string, document: Record<string, unknown>, stamp: Stamp, now: number): Entry {
  const { created_at, title, messages, user_id } = document
  const written = typeof created_at === 'string' ? created_at : writeTime(new Date(stamp.mtimeMs))
  return {
    stamp,
    settled: isSettled(stamp, now),
    time: parseTime(written)?.getTime() ?? Number.NEGATIVE_INFINITY,
    owner: typeof user_id === 'string' && user_id !== '' ? user_id : undefined,
    summary: {
      id,
      created_at: written,
      title: typeof title === 'string' ? title : NEW_TITLE,
      message_count: Array.isArray(messages) ? messages.length : 0,
    },
  }
}

const isUnreadable = (error: unknown) =>
  isThreadbaseError(error, 'invalid_input') || ['EACCES', 'EPERM'].includes(String(codeOf(error)))

const isSettled = (stamp: Stamp, now: number) => Math.max(stamp.ctimeMs, stamp.mtimeMs) < now - GRAIN_MS

function saysTheSame(a: Entry | undefined, b: Entry | undefined): boolean {
  if (a?.summary === undefined || b?.summary === undefined) return a?.summary === b?.summary
  return (
    a.owner === b.owner &&
    a.summary.created_at === b.summary.created_at &&
    a.summary.title === b.summary.title &&
    a.summary.message_count === b.summary.message_count
  )
}

async function lstatDirectory(path: string) {
  try {
    const found = await lstat(path)
    return found.isDirectory() ? found : undefined
  } catch (error) {
    if (isMissing(error)) return undefined
    throw error
  }
}
