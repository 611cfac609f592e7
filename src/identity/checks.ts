import type { Bus } from '../bus/bus.ts'
import type { Cache } from '../cache/cache.ts'
import type { Logger } from '../core/log.ts'

/** What credentials stand for, remembered so that a request need not ask the database. */
export type Checks = {
  /**
   * What is remembered under the key, else what `load` finds, which is then remembered.
   * Undefined means refused; that is remembered for a second at most.
   */
  read<T>(key: string, load: () => Promise<T | undefined>): Promise<T | undefined>
  /**
   * After a change in the database: every server forgets what it knows under the keys. False when that could not be
   * told to all of them; it is tried again until it can.
   */
  forget(...keys: string[]): Promise<boolean>
  close(): Promise<void>
}

export type CheckOptions = {
  cache: Cache
  bus: Bus
  log: Logger
  /** Whether no other process changes the database: then nothing is missed without a bus. */
  alone: boolean
}

const CHANNEL = 'identity'
/** While changes are heard of: how long before the database, or the shared cache, is asked again. */
const FRESH_MS = 15_000
/** While they may be missed, and for what was refused. */
const UNSURE_MS = 900
const SHARED_TTL_MS = 45_000
/** Longer than any statement takes that could have read what was there before the change. */
const RELOAD_TTL_MS = 120_000
const RELOAD = 'reload'
const MAX_ENTRIES = 20_000
const RETRY_MS = 1_000
const MAX_RETRIED = 10_000

type Entry = { value: unknown; at: number }

/**
 * Two layers: this process's own memory, and the shared cache when there is one. The database has the last word. A
 * change is written there first; then the shared entry is replaced by a mark that says "ask the database", which a
 * slow reader cannot overwrite with what it read before the change; then the others are told.
 */
export async function createChecks({ cache, bus, log, alone }: CheckOptions): Promise<Checks> {
  const own = new Map<string, Entry>()
  const loading = new Map<string, Promise<unknown>>()
  const untold = new Set<string>()
  let changes = 0
  let retry: NodeJS.Timeout | undefined

  const drop = (keys: Iterable<string>) => {
    changes++
    for (const key of keys) {
      own.delete(key)
      loading.delete(key)
    }
  }
  const dropAll = () => {
    changes++
    own.clear()
    loading.clear()
  }
  const stop = await bus.subscribe(CHANNEL, (message) => drop(parseKeys(message)))
  bus.onReconnect(dropAll)
  const hearsAll = () => alone || (bus.shared && bus.connected())

  const remember = (key: string, value: unknown) => {
    own.delete(key)
    own.set(key, { value, at: Date.now() })
    if (own.size > MAX_ENTRIES) own.delete(own.keys().next().value as string)
  }

  const load = async <T>(key: string, find: () => Promise<T | undefined>): Promise<T | undefined> => {
    const before = changes
    const shared = cache.shared ? await readShared<T>(cache, key) : undefined
    const value = shared === undefined || shared === RELOAD ? await find() : (shared as T)
    if (cache.shared && shared === undefined && value !== undefined) await fillShared(cache, key, value)
    // what changed meanwhile may be this
    if (changes === before) remember(key, value)
    return value
  }

  const tell = async (keys: string[]): Promise<boolean> => {
    try {
      if (cache.shared) for (const key of keys) await cache.set(key, RELOAD, { ttlMs: RELOAD_TTL_MS })
      await bus.publish(CHANNEL, JSON.stringify(keys))
      return true
    } catch (error) {
      if (untold.size === 0)
        log.warn(
          { err: error },
          'a change of credentials could not be told to the other servers; trying again',
        )
      for (const key of keys) if (untold.size < MAX_RETRIED) untold.add(key)
      retry ??= setInterval(() => void tellAgain(), RETRY_MS).unref()
      return false
    }
  }
  const tellAgain = async () => {
    const keys = [...untold]
    untold.clear()
    if (keys.length > 0 && !(await tell(keys))) return
    if (untold.size > 0) return
    clearInterval(retry)
    retry = undefined
  }

  return {
    async read<T>(key: string, find: () => Promise<T | undefined>): Promise<T | undefined> {
      const entry = own.get(key)
      if (entry !== undefined) {
        const limit = entry.value !== undefined && hearsAll() ? FRESH_MS : UNSURE_MS
        const age = Date.now() - entry.at
        if (age >= 0 && age < limit) return entry.value as T | undefined
      }
      let running = loading.get(key) as Promise<T | undefined> | undefined
      if (running === undefined) {
        running = load(key, find)
        loading.set(key, running)
        const done = () => {
          if (loading.get(key) === running) loading.delete(key)
        }
        running.then(done, done)
      }
      return running
    },

    async forget(...keys) {
      drop(keys)
      return tell(keys)
    },

    async close() {
      clearInterval(retry)
      await stop().catch(() => {})
    },
  }
}

async function readShared<T>(cache: Cache, key: string): Promise<T | typeof RELOAD | undefined> {
  try {
    const text = await cache.get(key)
    return text === undefined || text === RELOAD ? text : (JSON.parse(text) as T)
  } catch {
    // the cache is away: the database knows
    return RELOAD
  }
}

/** A mark, or what another server found, stays. */
async function fillShared(cache: Cache, key: string, value: unknown): Promise<void> {
  try {
    await cache.set(key, JSON.stringify(value), { ttlMs: SHARED_TTL_MS, ifAbsent: true })
  } catch {
    // the next one may
  }
}

function parseKeys(message: string): string[] {
  try {
    const keys: unknown = JSON.parse(message)
    return Array.isArray(keys) ? keys.filter((key) => typeof key === 'string') : []
  } catch {
    return []
  }
}
