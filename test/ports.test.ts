import { rm } from 'node:fs/promises'
import { describe, expect, test, vi } from 'vitest'
import { openThreadbase } from '../src/threadbase.ts'
import { makeTempDir, newRedisPrefix, redisUrl } from './harness.ts'

const LONG = { ttlMs: 60_000 }

describe('Threadbase', () => {
  test('has cache and bus in the process when nothing is configured, and closes them', async () => {
    const dataDir = await makeTempDir()
    const tb = await openThreadbase({ dataDir })
    expect([tb.cache.engine, tb.bus.engine]).toEqual(['memory', 'local'])
    await tb.close()
    await expect(tb.cache.get('a')).rejects.toMatchObject({ code: 'unavailable' })
    expect(tb.bus.connected()).toBe(false)
    await rm(dataDir, { recursive: true, force: true })
  })

  test('refuses an address that is none before it opens anything', async () => {
    const opening = openThreadbase({ dataDir: '/nowhere', redisUrl: 'http://:secret@h' })
    await expect(opening).rejects.toMatchObject({ code: 'invalid_input', details: { variable: 'REDIS_URL' } })
    await expect(opening).rejects.not.toThrow(/secret/)
  })

  test.skipIf(redisUrl === null)('two of them with one Redis and one prefix share both', async () => {
    const directories = [await makeTempDir(), await makeTempDir()]
    const env = { REDIS_PREFIX: newRedisPrefix() }
    const open = (dataDir: string) => openThreadbase({ dataDir, redisUrl: redisUrl as string, env })
    const [one, two] = await Promise.all(directories.map(open))
    if (one === undefined || two === undefined) throw new Error('unreachable')
    await one.cache.set('key', 'value', LONG)
    expect(await two.cache.get('key')).toBe('value')
    const heard: string[] = []
    await two.bus.subscribe('channel', (message) => void heard.push(message))
    await one.bus.publish('channel', 'hello')
    await vi.waitFor(() => expect(heard).toEqual(['hello']))
    await Promise.all([one.close(), two.close()])
    for (const directory of directories) await rm(directory, { recursive: true, force: true })
  })

  test('starts while Redis is away', async () => {
    const dataDir = await makeTempDir()
    const tb = await openThreadbase({ dataDir, redisUrl: 'redis://127.0.0.1:1' })
    await expect(tb.cache.get('a')).rejects.toMatchObject({ code: 'unavailable' })
    expect((await tb.threads.create({ userId: 'u' }, { title: 'works' })).title).toBe('works')
    await tb.close()
    await rm(dataDir, { recursive: true, force: true })
  })
})
