import { isThreadbaseError } from '../core/errors.ts'
import type { Logger } from '../core/log.ts'
import type { Cache, WindowCount } from './cache.ts'
import { createMemoryCache } from './memory.ts'

export type Limiter = {
  /**
   * Counts towards a limit in a fixed window that begins with its first count. While the cache is away it counts in
   * this process, so that each process allows the limit; it never throws for an outage.
   * @throws invalid_input for a limit or window that is no positive number
   */
  take(key: string, options: TakeOptions): Promise<Taken>
}

/**
 * `by` is a whole number, default 1; 0 asks whether one more would be allowed, and counts nothing; a negative one takes
 * back what was counted.
 */
export type TakeOptions = { limit: number; windowS: number; by?: number }
/** `remaining` is what the window still allows; `resetS` the whole seconds, rounded up, until it ends. */
export type Taken = { allowed: boolean; limit: number; remaining: number; resetS: number }

export function createLimiter(cache: Cache, log: Logger): Limiter {
  let fallback: { cache: Cache; since: number } | undefined

  const beginFallback = () => {
    log.warn({}, 'limits are counted in this process until the cache is back')
    fallback = { cache: createMemoryCache(), since: performance.now() }
    return fallback
  }
  const count = async (key: string, options: { windowMs: number; by: number }): Promise<WindowCount> => {
    const asked = performance.now()
    try {
      const counted = await cache.increment(key, options)
      // an answer to a question from before the outage does not end it
      if (fallback !== undefined && asked >= fallback.since) {
        fallback = undefined
        log.info({}, 'limits are counted in the cache again')
      }
      return counted
    } catch (error) {
      if (!isThreadbaseError(error, 'unavailable')) throw error
      return (fallback ?? beginFallback()).cache.increment(key, options)
    }
  }
  return {
    take: async (key, { limit, windowS, by = 1 }) => {
      const { count: used, resetMs } = await count(key, { windowMs: windowS * 1_000, by })
      return {
        allowed: by <= 0 ? used < limit : used <= limit,
        limit,
        remaining: Math.max(0, limit - used),
        resetS: Math.ceil(resetMs / 1_000),
      }
    },
  }
}
