import { setTimeout as delay } from 'node:timers/promises'
import { describe, expect, test } from 'vitest'
import { newRedisPrefix, recordingLog, redisUrl } from '../../test/harness.ts'
import type { Cache } from './cache.ts'
import { createLimiter } from './limiter.ts'
import { createMemoryCache } from './memory.ts'
import { openRedisCache } from './redis.ts'

const caches: [name: string, available: boolean, open: (prefix: string) => Promise<Cache>][] = [
  ['memory', true, async () => createMemoryCache()],
  [
    'redis',
    redisUrl !== null,
    (prefix) => openRedisCache({ url: redisUrl as string, prefix, log: recordingLog().log }),
  ],
]

for (const [name, available, open] of caches) {
  describe.skipIf(!available)(`limits on ${name}`, () => {
    test('allow as many as the limit says, to each key, and say what remains', async () => {
      const cache = await open(newRedisPrefix())
      const { log, logged } = recordingLog()
      const limiter = createLimiter(cache, log)
      const options = { limit: 3, windowS: 60 }
      const taken = []
      for (let n = 0; n < 5; n++) taken.push(await limiter.take('a', options))
      expect(taken.map(({ allowed }) => allowed)).toEqual([true, true, true, false, false])
      expect(taken.map(({ remaining }) => remaining)).toEqual([2, 1, 0, 0, 0])
      for (const { limit, resetS } of taken) {
        expect(limit).toBe(3)
        expect(resetS).toBe(60)
      }
      expect(await limiter.take('b', { ...options, by: 3 })).toMatchObject({ allowed: true, remaining: 0 })
      expect(await limiter.take('c', { ...options, by: 4 })).toMatchObject({ allowed: false, remaining: 0 })
      expect(logged).toEqual([])
      await cache.close()
    })

    test('of 64 at once the limit are allowed', async () => {
      const cache = await open(newRedisPrefix())
      const limiter = createLimiter(cache, recordingLog().log)
      const options = { limit: 20, windowS: 60 }
      const taken = await Promise.all(Array.from({ length: 64 }, () => limiter.take('a', options)))
      expect(taken.filter(({ allowed }) => allowed)).toHaveLength(20)
      await cache.close()
    })

    test('by 0 asks whether one more would be allowed', async () => {
      const cache = await open(newRedisPrefix())
      const limiter = createLimiter(cache, recordingLog().log)
      const options = { limit: 1, windowS: 60 }
      for (let n = 0; n < 3; n++) {
        expect(await limiter.take('a', { ...options, by: 0 })).toMatchObject({ allowed: true, remaining: 1 })
      }
      await limiter.take('a', options)
      expect(await limiter.take('a', { ...options, by: 0 })).toMatchObject({ allowed: false, remaining: 0 })
      await cache.close()
    })

    test('allow again when the window has ended', async () => {
      const cache = await open(newRedisPrefix())
      const limiter = createLimiter(cache, recordingLog().log)
      const options = { limit: 1, windowS: 0.2 }
      expect((await limiter.take('a', options)).allowed).toBe(true)
      expect(await limiter.take('a', options)).toMatchObject({ allowed: false, resetS: 1 })
      while (!(await limiter.take('a', { ...options, by: 0 })).allowed) await delay(10)
      expect((await limiter.take('a', options)).allowed).toBe(true)
      await cache.close()
    })

    test('a limit that makes no sense is refused, not taken for an outage', async () => {
      const cache = await open(newRedisPrefix())
      const { log, logged } = recordingLog()
      const taking = createLimiter(cache, log).take('a', { limit: 1, windowS: 0 })
      await expect(taking).rejects.toMatchObject({ code: 'invalid_input' })
      expect(logged).toEqual([])
      await cache.close()
    })
  })
}

describe.skipIf(redisUrl === null)('a limit of two processes on one Redis', () => {
  test('is one limit', async () => {
    const prefix = newRedisPrefix()
    const open = () => openRedisCache({ url: redisUrl as string, prefix, log: recordingLog().log })
    const caches = [await open(), await open()]
    const limiters = caches.map((cache) => createLimiter(cache, recordingLog().log))
    const allowed: boolean[] = []
    for (let n = 0; n < 6; n++) {
      for (const limiter of limiters) {
        allowed.push((await limiter.take('ratelimit:u1:/api/threads', { limit: 5, windowS: 60 })).allowed)
      }
    }
    expect(allowed.filter(Boolean)).toHaveLength(5)
    await Promise.all(caches.map((cache) => cache.close()))
  })
})
