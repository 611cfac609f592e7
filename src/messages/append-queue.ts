import { isThreadbaseError } from '../core/errors.ts'
import { isSqlState } from '../db/errors.ts'
import type { AppendOutcome, AppendRow } from './repo.ts'

/** One caller's append: the messages of one request on one thread. Places within `rows` count from 1. */
export type AppendCall = { userId: string; threadId: string; rows: Omit<AppendRow, 'call'>[] }

/** Appends one call; `all` puts many in the queue at once, so that the first does not leave alone. */
export type AppendQueue = ((call: AppendCall) => Promise<AppendOutcome[]>) & {
  all(calls: AppendCall[]): Promise<AppendOutcome[]>[]
  stats(): QueueStats
}

/** Calls that wait for a statement, and statements under way. */
export type QueueStats = { waiting: number; running: number }

/** Stores rows of one or several users in one transaction; one outcome a row, in order. */
export type AppendBatch = (rows: AppendRow[]) => Promise<AppendOutcome[]>

export type AppendQueueOptions = {
  /** How many batches may be under way at the same time. */
  lanes: number
}

type Waiting = {
  call: AppendCall
  thread: string
  resolve: (outcomes: AppendOutcome[]) => void
  reject: (error: unknown) => void
}

const MAX_ROWS = 1_000
/** Characters of a statement, unless one call alone has more. */
export const MAX_CHARS = 4_000_000

/**
 * Puts the appends that wait at the same time into one statement. A lone append leaves at once; while `lanes`
 * statements are under way, others gather and leave together. Each caller gets its own outcomes or its own error:
 * when a shared statement fails for a reason that may be one caller's, each is tried alone.
 */
export function createAppendQueue(append: AppendBatch, { lanes }: AppendQueueOptions): AppendQueue {
  let waiting: Waiting[] = []
  let running = 0
  // the statements of one thread wait for each other in the database anyway: let them gather here instead
  const busyThreads = new Set<string>()

  const start = () => {
    while (running < lanes) {
      const batch = takeBatch()
      if (batch.length === 0) return
      running++
      const threads = new Set(batch.map(({ thread }) => thread))
      for (const thread of threads) busyThreads.add(thread)
      void runBatch(append, batch).finally(() => {
        running--
        for (const thread of threads) busyThreads.delete(thread)
        start()
      })
    }
  }

  const takeBatch = (): Waiting[] => {
    const batch: Waiting[] = []
    const left: Waiting[] = []
    const keys = new Set<string>()
    // what waits keeps later calls on its thread waiting, so that none overtakes it
    const held = new Set<string>(busyThreads)
    let rows = 0
    let chars = 0
    for (const item of waiting) {
      const size = item.call.rows.length
      const length = charsOf(item.call.rows)
      const fits = batch.length === 0 || (rows + size <= MAX_ROWS && chars + length <= MAX_CHARS)
      if (!fits || held.has(item.thread) || !claimKeys(item, keys)) {
        held.add(item.thread)
        left.push(item)
        continue
      }
      batch.push(item)
      rows += size
      chars += length
    }
    waiting = left
    return batch
  }

  const all = (calls: AppendCall[]): Promise<AppendOutcome[]>[] => {
    const results = calls.map(
      (call) =>
        new Promise<AppendOutcome[]>((resolve, reject) => {
          waiting.push({ call, thread: `${call.threadId} ${call.userId}`, resolve, reject })
        }),
    )
    start()
    return results
  }
  const stats = () => ({ waiting: waiting.length, running })
  return Object.assign((call: AppendCall) => all([call])[0] as Promise<AppendOutcome[]>, { all, stats })
}

/**
 * False when the batch holds one of the message ids already, or a parent that this call names: the statement takes
 * each id at most once, and finds parents of other calls among what was stored before.
 */
function claimKeys({ call, thread }: Waiting, keys: Set<string>): boolean {
  const key = (id: string) => `${thread} ${id}`
  for (const { messageId, parentKey } of call.rows) {
    if (messageId !== null && keys.has(key(messageId))) return false
    if (parentKey !== null && keys.has(key(parentKey))) return false
  }
  for (const { messageId } of call.rows) if (messageId !== null) keys.add(key(messageId))
  return true
}

/** The characters that rows add to a statement, as far as they may be many. */
export function charsOf(rows: AppendCall['rows']): number {
  let chars = 0
  for (const row of rows)
    chars += row.content.length + (row.toolInput?.length ?? 0) + (row.toolOutput?.length ?? 0)
  return chars
}

async function runBatch(append: AppendBatch, batch: Waiting[]): Promise<void> {
  try {
    let offset = 0
    const rows = batch.flatMap(({ call }, i) => {
      const own = toRows(call, i, offset)
      offset += own.length
      return own
    })
    const outcomes = await append(rows)
    let from = 0
    for (const { call, resolve } of batch) {
      resolve(outcomes.slice(from, from + call.rows.length))
      from += call.rows.length
    }
  } catch (error) {
    // a deadlock or a serialization failure stored nothing and is over
    const mayBeOneCalls = !isThreadbaseError(error, 'unavailable') || isSqlState(error, '40P01', '40001')
    if (batch.length === 1 || !mayBeOneCalls) {
      for (const { reject } of batch) reject(error)
    } else {
      for (const item of batch) await runBatch(append, [item])
    }
  }
}

function toRows(call: AppendCall, index: number, offset: number): AppendRow[] {
  return call.rows.map((row) => ({
    ...row,
    call: index,
    parentN: row.parentN === null ? null : row.parentN + offset,
  }))
}
