import type { Logger } from '../../core/log.ts'
import { parseTime } from '../mapping.ts'
import type { ConversationSummary } from '../schema.ts'
import type { ListOptions } from '../store.ts'
import { createDirectoryIndex, type DirectoryIndex, type Entry } from './directory-index.ts'
import { isOwnDirectory, type Place, type PlaceKind, placesOf } from './places.ts'

export type Listed = { summary: ConversationSummary; time: number; place: Place }

// about 100 MB of summaries
const MAX_ENTRIES = 300_000
const MAX_HOMES = 10_000

/**
 * What users have, newest first. Kept in memory and checked against the files whenever somebody asks.
 * @param localUser whose the files are that name no user
 */
export function createLists(root: string, localUser: string, log: Logger) {
  // both in the order in which they were used
  const indexes = new Map<string, DirectoryIndex>()
  const sorted = new Map<string, { version: string; all: Listed[] }>()
  let versions = 0
  const nextVersion = () => ++versions
  const homes = new Map<string, PlaceKind>()

  function indexOf(directory: string): DirectoryIndex {
    const index = indexes.get(directory) ?? createDirectoryIndex(directory, { root, log, nextVersion })
    indexes.delete(directory)
    indexes.set(directory, index)
    return index
  }

  function forgetLongUnused(): void {
    let total = 0
    for (const [directory, { entries }] of [...indexes].reverse()) {
      total += entries.size
      if (total > MAX_ENTRIES) indexes.delete(directory)
    }
    total = 0
    for (const [userId, { all }] of [...sorted].reverse()) {
      total += all.length
      if (total > MAX_ENTRIES) sorted.delete(userId)
    }
  }

  /** All of a user's, in the order of the list. */
  async function listAll(userId: string): Promise<readonly Listed[]> {
    const looked: { place: Place; index: DirectoryIndex }[] = []
    for (const place of placesOf(root, userId)) {
      if (!(await isOwnDirectory(root, place))) continue
      const index = indexOf(place.directory)
      await index.refresh()
      looked.push({ place, index })
    }
    const version = looked.map(({ place, index }) => `${place.kind} ${index.version()}`).join()
    const known = sorted.get(userId)
    sorted.delete(userId)
    const all = known?.version === version ? known.all : sortAll(looked, userId)
    sorted.set(userId, { version, all })
    forgetLongUnused()
    return all
  }

  function sortAll(looked: { place: Place; index: DirectoryIndex }[], userId: string): Listed[] {
    const byId = new Map<string, Listed>()
    for (const { place, index } of looked) {
      for (const [id, entry] of index.entries) {
        // as when one is read: the first place counts
        if (!byId.has(id) && isListed(entry) && (place.kind !== 'flat' || ownerOf(entry) === userId))
          byId.set(id, { summary: entry.summary, time: entry.time, place })
      }
    }
    return [...byId.values()].sort(inOrder)
  }

  const ownerOf = (entry: Entry) => entry.owner ?? localUser

  /** Where a user's new conversations go: to those that there are. */
  async function homeOf(userId: string): Promise<PlaceKind> {
    const known = homes.get(userId)
    if (known !== undefined) return known
    const used = new Set((await listAll(userId)).map(({ place }) => place.kind))
    const wanted: PlaceKind[] = userId === localUser ? ['flat', 'nested', 'top'] : ['nested', 'top', 'flat']
    const home = wanted.find((kind) => used.has(kind)) ?? (wanted[0] as PlaceKind)
    if (homes.size >= MAX_HOMES) homes.clear()
    homes.set(userId, home)
    return home
  }

  return { listAll, homeOf }
}

const isListed = (entry: Entry): entry is Entry & { summary: ConversationSummary } =>
  entry.summary !== undefined

type Ordered = { time: number; summary: { id: string } }

/** Newest first, ids descending among equals. */
function inOrder(a: Ordered, b: Ordered): number {
  if (a.time !== b.time) return a.time < b.time ? 1 : -1
  return a.summary.id < b.summary.id ? 1 : a.summary.id > b.summary.id ? -1 : 0
}

/** The part of a list that the options ask for. */
export function cut(all: readonly Listed[], { limit, after }: ListOptions): Listed[] {
  let start = 0
  if (after !== undefined) {
    const time = parseTime(after.created_at)?.getTime() ?? Number.NEGATIVE_INFINITY
    const last = { time, summary: { id: after.id } }
    let end = all.length
    while (start < end) {
      const middle = (start + end) >> 1
      if (inOrder(all[middle] as Listed, last) > 0) end = middle
      else start = middle + 1
    }
  }
  return all.slice(start, limit === undefined ? undefined : start + limit)
}
