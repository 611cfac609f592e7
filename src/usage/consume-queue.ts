import { isThreadbaseError } from '../core/errors.ts'
import { isSqlState } from '../db/errors.ts'
import type { UsageRecord } from './schema.ts'

/** What is to be counted for a user, who has this tier if there is no row, and may then have `mostOfNew` at once. */
export type Wanted = { userId: string; n: number; tier: string; mostOfNew: number }

/** Counts for several users, each at most once; those in whose way a limit is are missing in what it gives. */
export type ConsumeBatch = (wanted: Wanted[]) => Promise<ReadonlyMap<string, UsageRecord>>

type Call = {
  wanted: Wanted
  /** It was refused together with others, which says nothing of itself. */
  alone: boolean
  resolve: (record: UsageRecord | undefined) => void
  reject: (error: unknown) => void
}
/** Calls of one user that are counted as one. */
type Group = [Call, ...Call[]]

const MAX_USERS = 200
// with a million each their sum is an int
const MAX_CALLS = 1_000

/**
 * Puts the calls that wait at the same time into one statement. A lone call leaves at once; while `lanes` statements are
 * under way, others gather. Those of one user, whose statements would wait for each other's row anyway, are counted as
 * one; where that is too much, each is tried by itself, in their order. When the database does not answer, those who
 * wait are refused as well: counted later, it would be for nobody.
 */
export function createConsumeQueue(consume: ConsumeBatch, { lanes }: { lanes: number }) {
  const waiting = new Map<string, Call[]>()
  const busy = new Set<string>()
  let running = 0

  const start = () => {
    while (running < lanes) {
      const batch = takeBatch()
      if (batch.length === 0) return
      running++
      // whoever asks again as soon as there is an answer is in time for the next statement
      void run(batch).finally(() => setImmediate(release, batch))
    }
  }

  const release = (batch: Group[]) => {
    running--
    for (const [{ wanted }] of batch) busy.delete(wanted.userId)
    start()
  }

  const takeBatch = (): Group[] => {
    const batch: Group[] = []
    for (const [userId, calls] of waiting) {
      if (batch.length === MAX_USERS) break
      if (busy.has(userId)) continue
      busy.add(userId)
      batch.push(takeGroup(calls))
      // who has more to come gets in line again behind the others
      waiting.delete(userId)
      if (calls.length > 0) waiting.set(userId, calls)
    }
    return batch
  }

  const run = async (batch: Group[]): Promise<void> => {
    try {
      const counted = await consume(batch.map(toWanted))
      for (const group of batch) settle(group, counted.get(group[0].wanted.userId))
    } catch (error) {
      const isOfAll = isThreadbaseError(error, 'unavailable') && !isSqlState(error, '40P01', '40001')
      if (isOfAll) return rejectAll(batch, error)
      const [group] = batch
      if (batch.length > 1) for (const one of batch) await run([one])
      else if (group !== undefined && group.length > 1) tryAlone(group)
      else group?.[0].reject(error)
    }
  }

  const settle = (group: Group, record: UsageRecord | undefined) => {
    if (record === undefined && group.length > 1) tryAlone(group)
    else answer(group, record)
  }

  const tryAlone = (group: Group) => {
    for (const call of group) call.alone = true
    const { userId } = group[0].wanted
    waiting.set(userId, [...group, ...(waiting.get(userId) ?? [])])
  }

  const rejectAll = (batch: Group[], error: unknown) => {
    const refused = [batch, [...waiting.values()]].flat(2)
    waiting.clear()
    for (const { reject } of refused) reject(error)
  }

  return (wanted: Wanted): Promise<UsageRecord | undefined> =>
    new Promise((resolve, reject) => {
      const call = { wanted, alone: false, resolve, reject }
      const calls = waiting.get(wanted.userId)
      if (calls === undefined) waiting.set(wanted.userId, [call])
      else calls.push(call)
      start()
    })
}

/** The first of a user's calls, with those behind it that may be counted with it. */
function takeGroup(calls: Call[]): Group {
  const end = calls[0]?.alone ? 1 : Math.min(calls.length, MAX_CALLS)
  return calls.splice(0, end) as Group
}

const sumOf = (calls: Call[]) => calls.reduce((sum, { wanted }) => sum + wanted.n, 0)
const toWanted = (group: Group): Wanted => ({ ...group[0].wanted, n: sumOf(group) })

/** Each call sees the counters as they were when it was counted: those behind it are not in them yet. */
function answer(group: Group, record: UsageRecord | undefined): void {
  let later = sumOf(group)
  for (const { wanted, resolve } of group) {
    later -= wanted.n
    resolve(record && without(later, record))
  }
}

const without = (n: number, record: UsageRecord): UsageRecord => ({
  ...record,
  dailyUsed: record.dailyUsed - n,
  monthlyUsed: record.monthlyUsed - n,
  totalQueries: record.totalQueries - n,
})
