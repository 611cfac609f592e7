import type { Database } from '../db/database.ts'
import * as repo from './repo.ts'

/**
 * A path as far as it is known: stretches of the thread, newest first, and the seq of the message where the walk goes
 * on, 0 behind the root. Rows of a stretch follow each other, so that a page is read by seq; a recursive query would
 * walk the whole path for each page.
 *
 * What is known of a path stays true while its leaf exists: seqs only grow, and a message that is deleted leaves its
 * stretch without changing the others. What is not known yet goes on from the message `rest` only while that exists:
 * with it goes what it followed, and the path is walked again.
 */
type Known = { stretches: repo.Stretch[]; rest: number }

/** Path to the message with seq `leaf`, of which nothing is known. */
export function unknownPath(leaf: number): Known {
  return { stretches: [], rest: leaf }
}

/**
 * Adds the part of a path that lies behind the seq `after`.
 * @param turns those from there to `known.rest`, newest first
 */
export function extendPath(known: Known, after: number, turns: readonly repo.Turn[]): Known {
  const stretches = [...known.stretches]
  let last = known.rest
  for (const { seq, parentSeq } of turns) {
    if (seq > last) continue
    stretches.push({ first: seq, last })
    last = parentSeq ?? 0
    if (last <= after) return { stretches, rest: last }
  }
  if (last > after) stretches.push({ first: after + 1, last })
  return { stretches, rest: Math.min(last, after) }
}

// rows that are looked through first when a page is read from its newest message; doubled while they do not fill it
const WINDOW = 500
const MAX_STRETCHES = 100_000

/** Reads paths. What it learnt of the paths read last is kept, about 10 MB at most. */
export function createPathReader(forUser: Database['forUser']) {
  const cache = new Map<string, Known>()
  let held = 0

  const forget = (key: string) => {
    held -= (cache.get(key)?.stretches.length ?? -1) + 1
    cache.delete(key)
  }
  const remember = (key: string, known: Known) => {
    forget(key)
    cache.set(key, known)
    held += known.stretches.length + 1
    for (const oldest of cache.keys()) {
      if (held <= MAX_STRETCHES) return
      forget(oldest)
    }
  }

  /** For the path to the message with seq `leaf`; what is learnt of it is kept under `key`, if there is one. */
  const open = (userId: string, threadId: string, leaf: number, key?: string) => {
    let known = (key === undefined ? undefined : cache.get(key)) ?? unknownPath(leaf)

    // what is behind `after` becomes known
    const know = async (after: number): Promise<void> => {
      if (known.rest <= after) return
      const listTurns = (last: number) => repo.listTurns(forUser(userId), userId, threadId, { after, last })
      let { turns, hasLast } = await listTurns(known.rest)
      if (!hasLast && known.stretches.length > 0) {
        known = unknownPath(leaf)
        ;({ turns } = await listTurns(leaf))
      }
      known = extendPath(known, after, turns)
      if (key !== undefined) remember(key, known)
    }

    // reads on where a page ends short: stretches may be shorter than they were, or not be known yet
    const read = async (page: repo.MessageRows, range: Required<repo.MessageRange>): Promise<void> => {
      const inside = clip(known.stretches, range)
      for (let next = 0; next < inside.length && !page.more; ) {
        const limit = range.limit - page.messages.length
        const isFull = limit === 0 || page.bytes > repo.MAX_PAGE_BYTES / 2
        const { part, end } = takePart(inside, next, isFull ? 1 : limit)
        const options = { order: range.order, limit: isFull ? 1 : limit }
        const rows = await repo.listStretches(forUser(userId), userId, threadId, part, options)
        next = end
        if (isFull) {
          page.more = rows.messages.length > 0
        } else {
          page.messages.push(...rows.messages)
          page.bytes += rows.bytes
          page.more = rows.more
        }
      }
    }

    return {
      /** A page of the path, `limit` messages at most. */
      async page({ before, after = 0, order, limit }: repo.MessageRange): Promise<repo.MessageRows> {
        const page: repo.MessageRows = { messages: [], more: false, bytes: 0 }
        let bottom = Math.min(before ?? leaf + 1, leaf + 1)
        // the newest messages need the path no further than they reach
        for (let window = Math.max(WINDOW, 2 * limit); ; window *= 2) {
          await know(order === 'asc' ? after : Math.max(after, bottom - 1 - window))
          await read(page, { before: bottom, after: Math.max(after, known.rest), order, limit })
          if (page.more || known.rest <= after) return page
          bottom = Math.min(bottom, known.rest + 1)
        }
      },
    }
  }
  return open
}

/** The parts of stretches between two seqs, both excluded, in the order of the page. */
function clip(
  stretches: readonly repo.Stretch[],
  { before, after, order }: Required<repo.MessageRange>,
): repo.Stretch[] {
  const inside: repo.Stretch[] = []
  for (const { first, last } of stretches) {
    const part = { first: Math.max(first, after + 1), last: Math.min(last, before - 1) }
    if (part.first <= part.last) inside.push(part)
  }
  return order === 'desc' ? inside : inside.reverse()
}

/** As many stretches from `start` as hold more than `limit` messages, if none of them was deleted. */
function takePart(stretches: repo.Stretch[], start: number, limit: number) {
  let end = start
  for (let count = 0; end < stretches.length && count <= limit; end++) {
    const { first, last } = stretches[end] as repo.Stretch
    count += last - first + 1
  }
  return { part: stretches.slice(start, end), end }
}
