import { setTimeout as delay } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { newRedisPrefix, recordingLog, redisUrl } from '../../test/harness.ts'
import type { Cache } from './cache.ts'
import { createMemoryCache } from './memory.ts'
import { openRedisCache } from './redis.ts'

const openRedis = () =>
  openRedisCache({ url: redisUrl as string, prefix: newRedisPrefix(), log: recordingLog().log })
const engines: [name: Cache['engine'], available: boolean, open: () => Promise<Cache>][] = [
  ['memory', true, async () => createMemoryCache()],
  ['redis', redisUrl !== null, openRedis],
]
const LONG = { ttlMs: 60_000 }
const WINDOW = { windowMs: 60_000 }

/** Until it is gone: when exactly is the clock's affair. */
async function untilGone(cache: Cache, key: string): Promise<void> {
  while ((await cache.get(key)) !== undefined) await delay(10)
}

for (const [engine, available, open] of engines) {
  describe.skipIf(!available)(`the cache port on ${engine}`, () => {
    let cache: Cache
    let keys = 0
    const newKey = () => `key-${++keys}`
    beforeAll(async () => {
      cache = await open()
    })
    afterAll(() => cache?.close())

    test('says what it is', () => {
      expect(cache.engine).toBe(engine)
      expect(cache.shared).toBe(engine === 'redis')
      expect(cache.description).toMatch(
        engine === 'memory' ? /^in this process$/ : /^Redis at [\w.]+:\d+(\/\d+)?$/,
      )
    })

    test('keeps a text until its time is over', async () => {
      const [short, long] = [newKey(), newKey()]
      expect(await cache.get(short)).toBeUndefined()
      expect(await cache.set(short, 'a', { ttlMs: 80 })).toBe(true)
      expect(await cache.set(long, 'b', LONG)).toBe(true)
      await untilGone(cache, short)
      expect(await cache.get(long)).toBe('b')
    })

    test('a later set replaces text and time', async () => {
      const key = newKey()
      await cache.set(key, 'a', { ttlMs: 50 })
      await cache.set(key, 'b', LONG)
      await delay(80)
      expect(await cache.get(key)).toBe('b')
      await cache.set(key, 'c', { ttlMs: 1 })
      await untilGone(cache, key)
    })

    test('ifAbsent keeps what is there, and sets again once it has expired', async () => {
      const key = newKey()
      expect(await cache.set(key, 'a', { ttlMs: 60, ifAbsent: true })).toBe(true)
      expect(await cache.set(key, 'b', { ...LONG, ifAbsent: true })).toBe(false)
      await untilGone(cache, key)
      expect(await cache.set(key, 'c', { ...LONG, ifAbsent: true })).toBe(true)
      expect(await cache.get(key)).toBe('c')
    })

    test('of 64 callers with ifAbsent one wins, and its value is there', async () => {
      const key = newKey()
      const won = await Promise.all(
        Array.from({ length: 64 }, (_, n) => cache.set(key, `value ${n}`, { ...LONG, ifAbsent: true })),
      )
      expect(won.filter(Boolean)).toHaveLength(1)
      expect(await cache.get(key)).toBe(`value ${won.indexOf(true)}`)
    })

    test('64 callers who count get 64 different counts', async () => {
      const key = newKey()
      const counts = await Promise.all(Array.from({ length: 64 }, () => cache.increment(key, WINDOW)))
      expect(counts.map(({ count }) => count).sort((a, b) => a - b)).toEqual(
        Array.from({ length: 64 }, (_, n) => n + 1),
      )
      for (const { resetMs } of counts) {
        expect(resetMs).toBeGreaterThan(0)
        expect(resetMs).toBeLessThanOrEqual(60_000)
      }
      expect(await cache.get(key)).toBe('64')
    })

    test('a window begins with its first count, is not made longer by others, and ends', async () => {
      const key = newKey()
      const first = await cache.increment(key, { windowMs: 300 })
      expect(first.count).toBe(1)
      const second = await cache.increment(key, { windowMs: 60_000, by: 5 })
      expect(second.count).toBe(6)
      expect(second.resetMs).toBeLessThanOrEqual(300)
      await untilGone(cache, key)
      expect(await cache.increment(key, WINDOW)).toMatchObject({ count: 1 })
    })

    test('by 0 reads, and begins no window', async () => {
      const key = newKey()
      expect(await cache.increment(key, { windowMs: 1_000, by: 0 })).toEqual({ count: 0, resetMs: 1_000 })
      expect(await cache.get(key)).toBeUndefined()
      await cache.increment(key, { ...WINDOW, by: 3 })
      expect(await cache.increment(key, { windowMs: 1_000, by: 0 })).toMatchObject({ count: 3 })
    })

    test('a count can be set; a text that is none cannot be counted on', async () => {
      const key = newKey()
      await cache.set(key, '41', LONG)
      expect(await cache.increment(key, WINDOW)).toMatchObject({ count: 42 })
      await cache.set(key, 'text', LONG)
      await expect(cache.increment(key, WINDOW)).rejects.toMatchObject({ code: 'invalid_input' })
      expect(await cache.get(key)).toBe('text')
    })

    test('deletes one, many, none, and what is not there', async () => {
      const [a, b, c] = [newKey(), newKey(), newKey()]
      for (const key of [a, b, c]) await cache.set(key, 'x', LONG)
      await cache.delete(a, b, 'never set')
      await cache.delete()
      expect(await Promise.all([a, b, c].map((key) => cache.get(key)))).toEqual([undefined, undefined, 'x'])
      await cache.increment(c, WINDOW).catch(() => {})
      await cache.delete(c)
      expect(await cache.increment(c, WINDOW)).toMatchObject({ count: 1 })
    })

    test.each([
      ['empty', '', ''],
      ['Unicode', 'schlüssel 😀 鍵', 'wert 😀\u0301'],
      ['NUL and line ends', 'a\0b\r\nc', '\0\r\n$1\r\n'],
      ['what is a glob or a name of JavaScript', '*[__proto__]', 'constructor'],
      ['1 MB', 'k'.repeat(10_000), 'v'.repeat(1_000_000)],
    ])('keys and values that are odd: %s', async (_, key, value) => {
      expect(await cache.get(key)).toBeUndefined()
      await cache.set(key, value, LONG)
      expect(await cache.get(key)).toBe(value)
      expect(await cache.get(`${key} `)).toBeUndefined()
      await cache.delete(key)
      expect(await cache.get(key)).toBeUndefined()
    })

    test('a lone surrogate is U+FFFD, in keys and values', async () => {
      await cache.set('lone \ud800', 'value \udfff', LONG)
      expect(await cache.get('lone \ufffd')).toBe('value \ufffd')
      expect(await cache.get('lone \udbff')).toBe('value \ufffd')
    })

    test.each([0, -1, Number.NaN, Number.POSITIVE_INFINITY])('a time of %s ms is refused', async (ms) => {
      await expect(cache.set('k', 'v', { ttlMs: ms })).rejects.toMatchObject({ code: 'invalid_input' })
      await expect(cache.increment('k', { windowMs: ms })).rejects.toMatchObject({ code: 'invalid_input' })
    })

    test('what was counted is taken back by a negative number, which begins no window', async () => {
      const key = 'taken back'
      expect((await cache.increment(key, { ...WINDOW, by: -1 })).count).toBe(0)
      expect((await cache.increment(key, { ...WINDOW, by: 0 })).count).toBe(0)
      await cache.increment(key, { ...WINDOW, by: 3 })
      expect((await cache.increment(key, { ...WINDOW, by: -1 })).count).toBe(2)
      expect((await cache.increment(key, WINDOW)).count).toBe(3)
    })

    test.each([0.5, Number.NaN, Number.MAX_VALUE])('counting by %s is refused', async (by) => {
      await expect(cache.increment('k', { ...WINDOW, by })).rejects.toMatchObject({ code: 'invalid_input' })
    })

    test('part of a millisecond is a millisecond', async () => {
      expect(await cache.set(newKey(), 'v', { ttlMs: 0.2 })).toBe(true)
      expect((await cache.increment(newKey(), { windowMs: 59_999.5 })).resetMs).toBe(60_000)
    })

    test('counts hits and misses; after close every call is unavailable and an error', async () => {
      const other = await open()
      await other.set('k', 'v', LONG)
      await other.get('k')
      await other.get('k')
      await other.get('not there')
      expect(other.stats()).toEqual({ hits: 2, misses: 1, errors: 0 })
      await other.close()
      await other.close()
      const calls = [
        other.get('k'),
        other.set('k', 'v', LONG),
        other.delete('k'),
        other.increment('k', WINDOW),
      ]
      for (const call of calls) await expect(call).rejects.toMatchObject({ code: 'unavailable' })
      expect(other.stats()).toEqual({ hits: 2, misses: 1, errors: 4 })
    })
  })
}
