import { Redis } from 'ioredis'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { newRedisPrefix, recordingLog, redisUrl } from '../../test/harness.ts'
import type { Cache } from './cache.ts'
import { openRedisCache } from './redis.ts'

describe.skipIf(redisUrl === null)('what the cache writes to Redis', () => {
  const prefix = newRedisPrefix()
  const url = redisUrl as string
  let redis: Redis
  let cache: Cache
  beforeAll(async () => {
    redis = new Redis(url)
    cache = await openRedisCache({ url, prefix, log: recordingLog().log })
  })
  afterAll(async () => {
    await redis?.quit()
    await cache?.close()
  })

  test('begins with the prefix and ends by itself', async () => {
    await cache.increment('ratelimit:u1:/api/threads', { windowMs: 60_000 })
    await cache.set('session', 'text', { ttlMs: 60_000 })
    const keys = (await redis.keys(`${prefix}*`)).sort()
    expect(keys).toEqual([`${prefix}ratelimit:u1:/api/threads`, `${prefix}session`])
    for (const key of keys) expect(await redis.pttl(key)).toBeGreaterThan(50_000)
  })

  test('does not last for ever where someone took the time limit off a counter', async () => {
    await cache.increment('counter', { windowMs: 60_000, by: 7 })
    await redis.persist(`${prefix}counter`)
    expect(await cache.increment('counter', { windowMs: 30_000 })).toEqual({ count: 8, resetMs: 30_000 })
    expect(await redis.pttl(`${prefix}counter`)).toBeGreaterThan(20_000)
  })

  test('what Redis refuses is unavailable, and the next call works', async () => {
    await redis.lpush(`${prefix}list`, 'x')
    await redis.pexpire(`${prefix}list`, 60_000)
    const reading = cache.get('list')
    await expect(reading).rejects.toMatchObject({ code: 'unavailable', details: { reason: 'WRONGTYPE' } })
    expect(await cache.get('nothing')).toBeUndefined()
  })
})
