import type { Logger } from '../core/log.ts'
import { createRedisLink } from '../redis/client.ts'
import { type Cache, type CacheStats, checkDuration, checkStep, notACount } from './cache.ts'

export type RedisCacheOptions = {
  /** A `redis://` or `rediss://` URL. Never logged, never part of an error. */
  url: string
  /** Comes before every key. */
  prefix: string
  log: Logger
  /** How long a call may take. Default 250. */
  timeoutMs?: number
  /** How long opening waits for Redis before it goes on without. Default 1000. */
  startTimeoutMs?: number
}

// One script, for a counter whose time limit was not set with it would count for ever; it mends such a one, too.
const COUNT = `
if tonumber(ARGV[1]) <= 0 and redis.call('exists', KEYS[1]) == 0 then return {0, tonumber(ARGV[2])} end
local count = redis.pcall('incrby', KEYS[1], ARGV[1])
if type(count) == 'table' then
  if string.find(count.err, 'not an integer') then return 'text' end
  return count
end
local left = redis.call('pttl', KEYS[1])
if left < 0 then
  redis.call('pexpire', KEYS[1], ARGV[2])
  left = tonumber(ARGV[2])
end
return {count, left}`

/**
 * A cache that every process on the same Redis and prefix shares. Redis being away does not fail the opening, but the
 * calls, until it is back; each outage is logged once.
 * @throws invalid_input for a URL that is none
 */
export async function openRedisCache(options: RedisCacheOptions): Promise<Cache> {
  const { prefix, log } = options
  const stats: CacheStats = { hits: 0, misses: 0, errors: 0 }
  let away = false
  const link = createRedisLink({
    ...options,
    name: 'cache',
    onAway: (reason) => {
      if (!away) log.warn({ reason }, 'the cache is away: Redis does not answer')
      away = true
    },
    onReady: () => {
      if (away) log.info({}, 'the cache is back')
      away = false
    },
  })
  await link.started()
  const call: typeof link.call = async (command) => {
    try {
      return await link.call(command)
    } catch (error) {
      stats.errors++
      throw error
    }
  }
  return {
    engine: 'redis',
    description: link.description,
    shared: true,
    get: async (key) => {
      const value = await call((redis) => redis.get(prefix + key))
      stats[value === null ? 'misses' : 'hits']++
      return value ?? undefined
    },
    set: async (key, value, { ttlMs, ifAbsent }) => {
      const ttl = checkDuration('ttlMs', ttlMs)
      const name = prefix + key
      const answer = await call((redis) =>
        ifAbsent ? redis.set(name, value, 'PX', ttl, 'NX') : redis.set(name, value, 'PX', ttl),
      )
      return answer !== null
    },
    delete: async (...keys) => {
      if (keys.length > 0) await call((redis) => redis.del(keys.map((key) => prefix + key)))
    },
    increment: async (key, { windowMs, by }) => {
      const window = checkDuration('windowMs', windowMs)
      const step = checkStep(by)
      const answer = await call((redis) => redis.eval(COUNT, 1, prefix + key, step, window))
      if (!Array.isArray(answer)) throw notACount()
      const [count, resetMs] = answer as [number, number]
      return { count, resetMs }
    },
    stats: () => ({ ...stats }),
    close: () => link.close(),
  }
}
