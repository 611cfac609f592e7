import type { Bus } from '../bus/bus.ts'
import type { Cache } from '../cache/cache.ts'
import type { Logger } from '../core/log.ts'
import { setNewest } from '../core/newest.ts'

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
/** By how much the clocks of two servers may differ. */
const CLOCK_SKEW_MS = 5_000
/** Longer than any statement takes that could have read what was there before the change. */
const RELOAD_TTL_MS = 120_000
const RELOAD = 'reload'
const MAX_ENTRIES = 20_000
const RETRY_MS = 1_000
const MAX_RETRIED = 10_000

/** `at`: when it was asked for, since what it says may be as old as that. */
type Entry = { value: unknown; at: number }
type Loading = { promise: Promise<unknown>; at: number }

/**
 * Two layers: this process's own memory, and the shared cache when there is one. The database has the last word. A
 * change is written there first; then the shared entry is replaced by a mark that says "ask the database", which a
 * slow reader cannot overwrite with what it read before the change; then the others are told. After a time without the
 * bus, when somebody may have ended without telling, shared entries from before are not believed.
 */
export async function createChecks({ cache, bus, log, alone }: CheckOptions): Promise<Checks> {
  const own = new Map<string, Entry>()
  const loading = new Map<string, Loading>()
  let changes = 0
  let believedFrom = Date.now() + CLOCK_SKEW_MS

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
    believedFrom = Date.now() + CLOCK_SKEW_MS
  }
  const stop = await bus.subscribe(CHANNEL, (message) => drop(parseKeys(message)))
  bus.onReconnect(dropAll)
  const hearsAll = () => alone || (bus.shared && bus.connected())
  const isYoung = (at: number, limit: number) => {
    const age = Date.now() - at
    return age >= 0 && age < limit
  }

  const remember = (key: string, entry: Entry) => {
    setNewest(own, key, entry, MAX_ENTRIES)
  }

  const load = async <T>(key: string, at: number, find: () => Promise<T | undefined>) => {
    const before = changes
    const shared = cache.shared ? await readShared(cache, key, believedFrom) : undefined
    const value = shared === undefined || shared === RELOAD ? await find() : (shared.value as T)
    if (cache.shared && shared === undefined && value !== undefined)
      await fillShared(cache, key, { value, at })
    // what changed meanwhile may be this; what was asked for later is newer
    if (changes === before && (own.get(key)?.at ?? 0) <= at) remember(key, { value, at })
    return value
  }
  const teller = createTeller({ cache, bus, log })

  return {
    async read<T>(key: string, find: () => Promise<T | undefined>): Promise<T | undefined> {
      const limit = hearsAll() ? FRESH_MS : UNSURE_MS
      const entry = own.get(key)
      if (entry !== undefined && isYoung(entry.at, entry.value === undefined ? UNSURE_MS : limit))
        return entry.value as T | undefined
      const running = loading.get(key)
      if (running !== undefined && isYoung(running.at, limit))
        return running.promise as Promise<T | undefined>
      const at = Date.now()
      const promise = load(key, at, find)
      loading.set(key, { promise, at })
      const done = () => {
        if (loading.get(key)?.promise === promise) loading.delete(key)
      }
      promise.then(done, done)
      return promise
    },

    async forget(...keys) {
      drop(keys)
      return teller.tell(keys)
    },

    async close() {
      await teller.close()
      await stop().catch(() => {})
    },
  }
}

/** Tells other processes which keys to forget, again and again until it is done. */
function createTeller({ cache, bus, log }: Pick<CheckOptions, 'cache' | 'bus' | 'log'>) {
  const untold = new Set<string>()
  let retry: NodeJS.Timeout | undefined

  /** Each is tried even when the other is away. */
  const send = async (keys: string[]): Promise<void> => {
    const mark = async () => {
      if (cache.shared) for (const key of keys) await cache.set(key, RELOAD, { ttlMs: RELOAD_TTL_MS })
    }
    const [marked] = await Promise.allSettled([mark()])
    await bus.publish(CHANNEL, JSON.stringify(keys))
    if (marked.status === 'rejected') throw marked.reason
  }
  const sendAgain = async () => {
    const keys = [...untold]
    await send(keys)
    for (const key of keys) untold.delete(key)
    if (untold.size > 0) return
    clearInterval(retry)
    retry = undefined
  }

  return {
    async tell(keys: string[]): Promise<boolean> {
      try {
        await send(keys)
        return true
      } catch (error) {
        if (untold.size === 0)
          log.warn(
            { err: error },
            'a change of credentials could not be told to the other servers; trying again',
          )
        for (const key of keys) if (untold.size < MAX_RETRIED) untold.add(key)
        retry ??= setInterval(() => void sendAgain().catch(() => {}), RETRY_MS).unref()
        return false
      }
    },

    async close(): Promise<void> {
      clearInterval(retry)
      if (untold.size > 0) await sendAgain().catch(() => {})
    },
  }
}

/** Undefined when there is none; the mark also when it is not to be believed, and when the cache is away. */
async function readShared(
  cache: Cache,
  key: string,
  believedFrom: number,
): Promise<Entry | typeof RELOAD | undefined> {
  try {
    const text = await cache.get(key)
    if (text === undefined || text === RELOAD) return text
    const entry = JSON.parse(text) as Partial<Entry> | null
    return Number(entry?.at) >= believedFrom && entry?.value !== undefined ? (entry as Entry) : RELOAD
  } catch {
    return RELOAD
  }
}

/** A mark, or what another server found, stays. */
async function fillShared(cache: Cache, key: string, entry: Entry): Promise<void> {
  try {
    await cache.set(key, JSON.stringify(entry), { ttlMs: SHARED_TTL_MS, ifAbsent: true })
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
