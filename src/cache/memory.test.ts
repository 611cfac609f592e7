import { setTimeout as delay } from 'node:timers/promises'
import { describe, expect, test } from 'vitest'
import { createMemoryCache } from './memory.ts'

const LONG = { ttlMs: 60_000 }

describe('a full memory cache', () => {
  test('forgets what was set longest ago', async () => {
    const cache = createMemoryCache({ maxEntries: 3 })
    for (const key of ['a', 'b', 'c']) await cache.set(key, key, LONG)
    await cache.set('a', 'again', LONG)
    await cache.set('d', 'd', LONG)
    const found = await Promise.all(['a', 'b', 'c', 'd'].map((key) => cache.get(key)))
    expect(found).toEqual(['again', undefined, 'c', 'd'])
  })

  test('forgets first what has expired', async () => {
    const cache = createMemoryCache({ maxEntries: 4 })
    await cache.set('old', 'stays', LONG)
    for (const key of ['a', 'b', 'c']) await cache.set(key, key, { ttlMs: 1 })
    await delay(5)
    for (const key of ['d', 'e', 'f']) await cache.set(key, key, LONG)
    const found = await Promise.all(['old', 'd', 'e', 'f'].map((key) => cache.get(key)))
    expect(found).toEqual(['stays', 'd', 'e', 'f'])
  })

  test('is bounded by its size, too: a text that is too large is not kept and costs the others', async () => {
    const cache = createMemoryCache({ maxCharacters: 1_000 })
    await cache.set('a', 'x'.repeat(400), LONG)
    await cache.set('b', 'x'.repeat(400), LONG)
    await cache.set('c', 'x'.repeat(400), LONG)
    expect(await cache.get('a')).toBeUndefined()
    expect(await cache.get('c')).toHaveLength(400)
    expect(await cache.set('d', 'x'.repeat(1_001), LONG)).toBe(true)
    expect(await cache.get('d')).toBeUndefined()
    await cache.set('e', 'x'.repeat(900), LONG)
    expect(await cache.get('e')).toHaveLength(900)
  })

  test('keeps to its size when counters that grew are gone', async () => {
    const cache = createMemoryCache({ maxCharacters: 1_000 })
    for (let n = 0; n < 100; n++) {
      await cache.increment('n', { windowMs: 60_000 })
      await cache.increment('n', { windowMs: 60_000, by: 1_000_000_000 })
      await cache.delete('n')
    }
    await cache.set('a', 'x'.repeat(600), LONG)
    await cache.set('b', 'x'.repeat(600), LONG)
    expect(await cache.get('a')).toBeUndefined()
    expect(await cache.get('b')).toHaveLength(600)
  })

  test('takes a million keys without growing', async () => {
    const cache = createMemoryCache({ maxEntries: 1_000 })
    for (let n = 0; n < 1_000_000; n++) await cache.increment(`key ${n}`, { windowMs: 60_000 })
    expect(await cache.get('key 998999')).toBeUndefined()
    expect(await cache.get('key 999000')).toBe('1')
  })
})
