import { rm } from 'node:fs/promises'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { parseConfig } from '../src/config.ts'
import { openPorts, openThreadbase } from '../src/open-threadbase.ts'
import { makeTempDir, newRedisPrefix, recordingLog, redisUrl } from './harness.ts'

const LONG = { ttlMs: 60_000 }

describe('Threadbase', () => {
  // one store for all: a new one takes seconds without the built package's prepared one
  let dataDir: string
  beforeAll(async () => {
    dataDir = await makeTempDir()
  })
  afterAll(() => rm(dataDir, { recursive: true, force: true }))

  test('has cache and bus in the process when nothing is configured, and closes them', async () => {
    const tb = await openThreadbase({ dataDir })
    expect([tb.cache.engine, tb.bus.engine]).toEqual(['memory', 'local'])
    await tb.close()
    await expect(tb.cache.get('a')).rejects.toMatchObject({ code: 'unavailable' })
    expect(tb.bus.connected()).toBe(false)
  })

  test('starts while Redis is away', async () => {
    const tb = await openThreadbase({ dataDir, redisUrl: 'redis://127.0.0.1:1' })
    expect([tb.cache.engine, tb.bus.engine]).toEqual(['redis', 'redis'])
    await expect(tb.cache.get('a')).rejects.toMatchObject({ code: 'unavailable' })
    expect((await tb.threads.create({ userId: 'u' }, { title: 'works' })).title).toBe('works')
    await tb.close()
  })

  test('refuses an address that is none before it opens anything', async () => {
    const opening = openThreadbase({ dataDir: '/nowhere', redisUrl: 'http://:secret@h' })
    await expect(opening).rejects.toMatchObject({ code: 'invalid_input', details: { variable: 'REDIS_URL' } })
    await expect(opening).rejects.not.toThrow(/secret/)
  })
})

describe.skipIf(redisUrl === null)('two processes with one Redis', () => {
  const open = async (prefix: string) => {
    const config = parseConfig({ REDIS_URL: redisUrl as string, REDIS_PREFIX: prefix })
    return openPorts(config, recordingLog().log)
  }

  test('share cache and bus when they have one prefix, and nothing when they have two', async () => {
    const prefix = newRedisPrefix()
    const all = await Promise.all([open(prefix), open(prefix), open(newRedisPrefix())])
    const [one, two, stranger] = all
    const heard: string[] = []
    await two.bus.subscribe('channel', (message) => void heard.push(message))
    await stranger.cache.set('key', 'of a stranger', LONG)
    await stranger.bus.publish('channel', 'of a stranger')
    await one.cache.set('key', 'value', LONG)
    await one.bus.publish('channel', 'hello')
    expect(await two.cache.get('key')).toBe('value')
    expect(await stranger.cache.get('key')).toBe('of a stranger')
    await vi.waitFor(() => expect(heard).toEqual(['hello']))
    await Promise.all(all.flatMap(({ cache, bus }) => [cache.close(), bus.close()]))
  })
})
