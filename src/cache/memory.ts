import { ThreadbaseError } from '../core/errors.ts'
import { type Cache, type CacheStats, checkDuration, checkStep, notACount } from './cache.ts'

export type MemoryCacheOptions = {
  /** Default 100,000. */
  maxEntries?: number
  /** Of all keys and values together. Default 50,000,000. */
  maxCharacters?: number
}

type Entry = { value: string; expiresAt: number }
type Store = {
  find(key: string): Entry | undefined
  put(key: string, entry: Entry): void
  /** Another value in the same place, for the same time. */
  change(entry: Entry, value: string): void
  remove(key: string): void
  clear(): void
}

/** A cache of this process. When it is full, what has expired goes first, then what was set longest ago. */
export function createMemoryCache(options: MemoryCacheOptions = {}): Cache {
  const store = createStore(options.maxEntries ?? 100_000, options.maxCharacters ?? 50_000_000)
  const stats: CacheStats = { hits: 0, misses: 0, errors: 0 }
  let closed = false
  const requireOpen = () => {
    if (!closed) return
    stats.errors++
    throw new ThreadbaseError('unavailable', 'the cache is closed')
  }
  return {
    engine: 'memory',
    description: 'in this process',
    shared: false,
    get: async (key) => {
      requireOpen()
      const value = store.find(key.toWellFormed())?.value
      stats[value === undefined ? 'misses' : 'hits']++
      return value
    },
    set: async (rawKey, value, { ttlMs, ifAbsent }) => {
      const ttl = checkDuration('ttlMs', ttlMs)
      requireOpen()
      const key = rawKey.toWellFormed()
      if (ifAbsent && store.find(key) !== undefined) return false
      store.put(key, { value: value.toWellFormed(), expiresAt: performance.now() + ttl })
      return true
    },
    delete: async (...keys) => {
      requireOpen()
      for (const key of keys) store.remove(key.toWellFormed())
    },
    increment: async (rawKey, { windowMs, by: step }) => {
      const window = checkDuration('windowMs', windowMs)
      const by = checkStep(step)
      requireOpen()
      const key = rawKey.toWellFormed()
      const now = performance.now()
      const entry = store.find(key)
      if (entry === undefined) {
        if (by > 0) store.put(key, { value: String(by), expiresAt: now + window })
        return { count: Math.max(0, by), resetMs: window }
      }
      if (!/^-?\d+$/.test(entry.value)) throw notACount()
      const count = Number(entry.value) + by
      store.change(entry, String(count))
      return { count, resetMs: Math.ceil(entry.expiresAt - now) }
    },
    stats: () => ({ ...stats }),
    close: async () => {
      closed = true
      store.clear()
    },
  }
}

function createStore(maxEntries: number, maxCharacters: number): Store {
  // in the order in which they were set
  const entries = new Map<string, Entry>()
  const sweepEvery = Math.ceil(maxEntries / 16)
  let characters = 0
  let putsSinceSweep = 0

  const remove = (key: string) => {
    const entry = entries.get(key)
    if (entry === undefined) return
    entries.delete(key)
    characters -= key.length + entry.value.length
  }
  const find = (key: string) => {
    const entry = entries.get(key)
    if (entry === undefined || entry.expiresAt > performance.now()) return entry
    remove(key)
    return undefined
  }
  const sweep = () => {
    putsSinceSweep = 0
    const now = performance.now()
    for (const [key, { expiresAt }] of entries) if (expiresAt <= now) remove(key)
  }
  const isOver = () => entries.size > maxEntries || characters > maxCharacters
  const put = (key: string, entry: Entry) => {
    remove(key)
    entries.set(key, entry)
    characters += key.length + entry.value.length
    // looking at all is paid for by the writes before it: no timer, and no scan for each write to a full cache
    if (++putsSinceSweep >= sweepEvery) sweep()
    for (const oldest of entries.keys()) {
      if (!isOver()) break
      remove(oldest)
    }
  }
  const change = (entry: Entry, value: string) => {
    characters += value.length - entry.value.length
    entry.value = value
  }
  const clear = () => {
    entries.clear()
    characters = 0
  }
  return { find, put, change, remove, clear }
}
