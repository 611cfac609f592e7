import { setTimeout as delay } from 'node:timers/promises'
import { Redis } from 'ioredis'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import type { Bus } from '../src/bus/bus.ts'
import { openRedisBus } from '../src/bus/redis.ts'
import type { Cache } from '../src/cache/cache.ts'
import { createLimiter } from '../src/cache/limiter.ts'
import { openRedisCache } from '../src/cache/redis.ts'
import { type LogRecord, recordingLog } from './harness.ts'
import { makeRedisServer, type RedisServer, redisServerAvailable } from './redis-server.ts'
import { startTcpProxy, type TcpProxy } from './tcp-proxy.ts'

const LONG = { ttlMs: 60_000 }
const WINDOW = { limit: 5, windowS: 60 }
const LIMITS = /^limits are counted/

/** How Redis goes away, and comes back, and whether it remembers. */
type Outage = { name: string; begin(): Promise<void> | void; end(): Promise<void> | void; remembers: boolean }

const eventually = (check: () => unknown) => vi.waitFor(check, { timeout: 20_000, interval: 20 })
const messagesOf = (logged: LogRecord[]) => logged.map(({ level, message }) => `${level} ${message}`)

describe.skipIf(!redisServerAvailable('Redis going away'))('Redis going away', () => {
  let server: RedisServer
  let proxy: TcpProxy
  let cache: Cache
  let bus: Bus
  let logged: LogRecord[]
  let log: ReturnType<typeof recordingLog>['log']
  let rejections: unknown[]
  const onRejection = (reason: unknown) => void rejections.push(reason)

  const openBoth = async (port = proxy.port) => {
    const options = { url: `redis://127.0.0.1:${port}`, prefix: 'test:', log }
    ;[cache, bus] = await Promise.all([openRedisCache(options), openRedisBus(options)])
  }
  beforeEach(async () => {
    rejections = []
    process.on('unhandledRejection', onRejection)
    server = await makeRedisServer()
    proxy = await startTcpProxy({ host: '127.0.0.1', port: server.port })
    ;({ log, logged } = recordingLog())
  })
  afterEach(async () => {
    await Promise.all([cache.close(), bus.close()])
    await proxy.close()
    await server.remove()
    await delay(50)
    process.off('unhandledRejection', onRejection)
    expect(rejections).toEqual([])
  })

  const outages: Outage[] = [
    { name: 'killed', begin: () => server.kill(), end: () => server.start(), remembers: false },
    { name: 'halted', begin: () => server.hang(), end: () => server.resume(), remembers: true },
    {
      name: 'behind a cut cable',
      begin: () => proxy.cut(),
      end: () => proxy.restore(),
      remembers: true,
    },
    {
      name: 'behind a silent network',
      begin: () => proxy.silence(),
      end: () => proxy.restore(),
      remembers: true,
    },
  ]

  test.each(outages)(
    '$name: the cache is unavailable, and works again',
    async ({ begin, end, remembers }) => {
      await openBoth()
      await cache.set('key', 'value', LONG)
      for (let round = 0; round < 2; round++) {
        await begin()
        const calls = [
          cache.get('key'),
          cache.set('key', 'other', { ...LONG, ifAbsent: true }),
          cache.delete('no key'),
          cache.increment('count', { windowMs: 60_000 }),
        ]
        for (const outcome of await Promise.allSettled(calls)) {
          const details = { reason: expect.any(String) }
          expect(outcome).toMatchObject({ reason: { code: 'unavailable', details } })
        }
        await end()
        await eventually(async () => expect(await cache.get('no key')).toBeUndefined())
        expect(await cache.get('key')).toBe(remembers ? 'value' : undefined)
      }
      expect(cache.stats().errors).toBeGreaterThanOrEqual(8)
      expect(messagesOf(logged).filter((line) => line.includes('the cache'))).toEqual([
        'warn the cache is away: Redis does not answer',
        'info the cache is back',
        'warn the cache is away: Redis does not answer',
        'info the cache is back',
      ])
    },
  )

  test.each(outages)('$name: limits go on in this process and come back, and say so once', async (outage) => {
    await openBoth()
    const limiter = createLimiter(cache, log)
    const ofLimits = () => messagesOf(logged).filter((line) => LIMITS.test(line.replace(/^\w+ /, '')))
    expect(await limiter.take('a', WINDOW)).toMatchObject({ allowed: true, remaining: 4 })
    await outage.begin()
    const taken = await Promise.all(Array.from({ length: 8 }, () => limiter.take('a', WINDOW)))
    taken.push(await limiter.take('a', WINDOW))
    expect(taken.filter(({ allowed }) => allowed)).toHaveLength(5)
    expect(await limiter.take('b', WINDOW)).toMatchObject({ allowed: true, remaining: 4 })
    const began = 'warn limits are counted in this process until the cache is back'
    expect(ofLimits()).toEqual([began])
    await outage.end()
    await eventually(async () => {
      await limiter.take('c', WINDOW)
      expect(ofLimits()).toEqual([began, 'info limits are counted in the cache again'])
    })
    // those that the outage caught on their way may have been counted there, too
    expect(await limiter.take('d', WINDOW)).toMatchObject({ allowed: true, remaining: 4 })
    expect(await cache.get('d')).toBe('1')
  })

  test.each(outages)('$name: the bus notices, comes back with its channels and says so', async (outage) => {
    await openBoth()
    const heard: string[] = []
    const reconnected = vi.fn()
    bus.onReconnect(reconnected)
    await bus.subscribe('channel', (message) => void heard.push(message))
    expect(bus.connected()).toBe(true)
    await outage.begin()
    await eventually(() => expect(bus.connected()).toBe(false))
    await expect(bus.publish('channel', 'lost')).rejects.toMatchObject({ code: 'unavailable' })
    // whoever begins to listen now listens later
    await bus.subscribe('new', (message) => void heard.push(message))
    const end = await bus.subscribe('ended', (message) => void heard.push(message))
    await end()
    expect(reconnected).not.toHaveBeenCalled()
    await outage.end()
    await eventually(() => expect(bus.connected()).toBe(true))
    expect(reconnected).toHaveBeenCalledTimes(1)
    for (const channel of ['ended', 'channel', 'new']) {
      await eventually(() => bus.publish(channel, `to ${channel}`))
    }
    await eventually(() => expect(heard).toContain('to new'))
    // what was published in vain may have gone out after all
    expect(heard.filter((message) => message !== 'lost')).toEqual(['to channel', 'to new'])
    expect(messagesOf(logged).filter((line) => line.includes('the bus'))).toEqual([
      'warn the bus is away: messages of other processes may be missed',
      'info the bus is back',
    ])
  })

  test('a connection that dies silently while nobody calls is noticed', async () => {
    await openBoth()
    proxy.silence()
    // the heartbeat alone, well before the operating system would
    await vi.waitFor(() => expect(bus.connected()).toBe(false), { timeout: 5_000, interval: 10 })
    expect(logged).toContainEqual(expect.objectContaining({ facts: { reason: 'timeout' } }))
  })

  test('while it hangs, only the first calls wait', async () => {
    await openBoth()
    server.hang()
    await expect(cache.get('a')).rejects.toMatchObject({ details: { reason: 'timeout' } })
    // a thousand that each waited for the timeout would take four minutes, beyond this test's time
    for (let n = 0; n < 1_000; n++) {
      await expect(cache.get('a')).rejects.toMatchObject({ code: 'unavailable' })
    }
    server.resume()
    await eventually(() => cache.get('a'))
  })

  test('a server that became a replica is left for whoever is the primary now', async () => {
    await openBoth()
    const admin = new Redis(server.url)
    const connection = async () =>
      /^id=(\d+) .* name=threadbase-cache /m.exec(String(await admin.client('LIST')))?.[1]
    const before = await connection()
    await admin.replicaof('127.0.0.1', 1)
    const writing = cache.increment('n', { windowMs: 60_000 })
    await expect(writing).rejects.toMatchObject({ code: 'unavailable', details: { reason: 'READONLY' } })
    await eventually(async () => expect([undefined, before]).not.toContain(await connection()))
    await admin.replicaof('NO', 'ONE')
    await eventually(async () => expect(await cache.set('a', 'b', LONG)).toBe(true))
    await admin.quit()
  })

  test('this process being slow is no timeout', async () => {
    // without the proxy, which lives in this process, too
    await openBoth(server.port)
    const reading = cache.get('a')
    const until = performance.now() + 600
    while (performance.now() < until);
    expect(await reading).toBeUndefined()
    expect(bus.connected()).toBe(true)
  })

  const startStates: [name: string, begin: () => Promise<void> | void, end: () => Promise<void> | void][] = [
    ['gone', () => server.kill(), () => server.start()],
    ['halted', () => server.hang(), () => server.resume()],
  ]
  test.each(startStates)(
    '%s at the start: opening goes on without, says so once, and it comes later',
    async (_, begin, end) => {
      await begin()
      await openBoth()
      expect(bus.connected()).toBe(false)
      const reconnected = vi.fn()
      bus.onReconnect(reconnected)
      const heard: string[] = []
      await bus.subscribe('channel', (message) => void heard.push(message))
      await expect(cache.get('a')).rejects.toMatchObject({ code: 'unavailable' })
      await delay(500)
      expect(messagesOf(logged).sort()).toEqual([
        'warn the bus is away: messages of other processes may be missed',
        'warn the cache is away: Redis does not answer',
      ])
      await end()
      await eventually(() => expect(bus.connected()).toBe(true))
      expect(reconnected).toHaveBeenCalledTimes(1)
      await eventually(() => bus.publish('channel', 'hello'))
      await eventually(() => expect(heard).toEqual(['hello']))
      await eventually(async () => expect(await cache.get('a')).toBeUndefined())
    },
  )

  test.each([
    ['answering', () => {}],
    ['killed', () => server.kill()],
    ['halted', () => server.hang()],
    ['silent', () => proxy.silence()],
    [
      'long gone',
      async () => {
        await server.kill()
        await delay(1_500)
      },
    ],
    [
      'long halted',
      async () => {
        server.hang()
        await delay(1_500)
      },
    ],
  ])('closing returns when Redis is %s, with calls in flight', async (_, begin) => {
    await openBoth()
    await bus.subscribe('channel', () => {})
    await begin()
    const calls = [cache.get('a'), cache.increment('b', { windowMs: 1_000 }), bus.publish('channel', 'x')]
    const settled = Promise.allSettled(calls)
    await Promise.all([cache.close(), bus.close()])
    for (const outcome of await settled) {
      if (outcome.status === 'rejected') expect(outcome.reason).toMatchObject({ code: 'unavailable' })
    }
    expect(bus.connected()).toBe(false)
    const lines = logged.length
    await delay(300)
    expect(logged.length).toBe(lines)
  })
})
