import { type Logger, silentLog } from '../../core/log.ts'
import type { Database } from '../../db/database.ts'
import { invalid } from '../run-config.ts'
import { createEmbedder, type Embedder, readFields, type StoreIndex } from './embedding.ts'
import { readTtl } from './operations.ts'
import * as repo from './repo.ts'
import type { TextPath } from './texts.ts'
import { prepareSpace, type Space } from './vectors/service.ts'

/** How long items live. */
export type StoreTtl = {
  /** How many seconds an item lives that says nothing else. Default: for ever. */
  defaultS?: number
  /** Whether to be read gives an item its whole time again. Default true. */
  refreshOnRead?: boolean
  /** How often this process removes what has expired, while the store is in use. Default 300; `Infinity`: never. */
  sweepEveryS?: number
}

/** What the stores of all users share. */
export type StoreSettings = { index?: StoreIndex; ttl?: StoreTtl; log?: Logger }
export type StoreDatabase = Pick<Database, 'forUser' | 'db' | 'engine' | 'schema'>

/** What the stores of all users have together. */
export type Shared = {
  readonly embedder: Embedder | undefined
  readonly fields: TextPath[]
  readonly defaultTtlS: number | null
  readonly refresh: boolean
  /** How vectors are compared here; made ready when it is asked for first. @throws unavailable */
  space(): Promise<Space>
  /** Removes all that has expired. @returns how many items */
  sweep(): Promise<number>
  /** Sweeps in the background when it is time to. */
  sweepNowAndThen(): void
}

const SWEEP_EVERY_S = 300
const SWEEP_BATCH = 1_000

/** @throws invalid_input that names the option */
export function createShared(database: StoreDatabase, settings: StoreSettings): Shared {
  const { index, ttl = {}, log = silentLog } = settings
  const embedder = createEmbedder(index)
  const { defaultS, refreshOnRead = true, sweepEveryS = SWEEP_EVERY_S } = ttl
  const exactUpTo = index?.exactUpTo
  if (exactUpTo !== undefined && !(exactUpTo >= 0 && (Number.isInteger(exactUpTo) || exactUpTo === Infinity)))
    throw invalid('index.exactUpTo must be a whole number, or Infinity', 'index.exactUpTo')
  let space: Promise<Space> | undefined
  let nextSweep = Date.now() + sweepEveryS * 1_000
  const sweep = async () => {
    let removed = 0
    for (let last = SWEEP_BATCH; last === SWEEP_BATCH; removed += last)
      last = await repo.sweepExpired(database.db, SWEEP_BATCH)
    return removed
  }
  return {
    embedder,
    fields: readFields(index?.fields),
    defaultTtlS: defaultS === undefined ? null : readTtl(defaultS, 'ttl.defaultS'),
    refresh: refreshOnRead,
    space() {
      space ??= prepareSpace(database, { dims: embedder?.dims ?? 0, exactUpTo }, log).catch((error) => {
        // another time it may be there
        space = undefined
        throw error
      })
      return space
    },
    sweep,
    sweepNowAndThen() {
      if (Date.now() < nextSweep) return
      nextSweep = Date.now() + sweepEveryS * 1_000
      sweep().catch((error: unknown) => {
        const reason = error instanceof Error ? error.message : String(error)
        log.warn({ reason }, 'expired items of the store were not removed')
      })
    },
  }
}
