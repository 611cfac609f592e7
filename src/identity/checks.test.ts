import { afterEach, describe, expect, test, vi } from 'vitest'
import { newRedisPrefix, recordingLog, redisUrl } from '../../test/harness.ts'
import { makeRedisServer, type RedisServer, redisServerAvailable } from '../../test/redis-server.ts'
import { startTcpProxy, type TcpProxy } from '../../test/tcp-proxy.ts'
import { createLocalBus } from '../bus/local.ts'
import { openRedisBus } from '../bus/redis.ts'
import { createMemoryCache } from '../cache/memory.ts'
import { openRedisCache } from '../cache/redis.ts'
import { createChecks } from './checks.ts'

const KEY = 'user:anna'
const cleanups: (() => Promise<unknown> | unknown)[] = []
afterEach(async () => {
  vi.useRealTimers()
  for (const cleanUp of cleanups.splice(0).reverse()) await cleanUp()
})

const forward = (ms: number) => void vi.useFakeTimers({ toFake: ['Date'], now: Date.now() + ms })
const eventually = (check: () => unknown) => vi.waitFor(check, { timeout: 20_000, interval: 10 })

/** A record of the database that checks read, and how often they did. */
function newRecord(value = 'old') {
  const record: { value: string | undefined; loads: number } = { value, loads: 0 }
  const load = async () => {
    record.loads++
    return record.value
  }
  return { record, load }
}

/** A load that takes what is there when it begins, and ends when the test says so. */
function slowly(record: { value: string | undefined }) {
  let end = () => {}
  const ended = new Promise<void>((resolve) => {
    end = resolve
  })
  const load = async () => {
    const { value } = record
    await ended
    return value
  }
  return { load, end }
}

/** A process without Redis. `alone`: nobody else changes the database. */
async function openLocal(alone: boolean) {
  const { log, logged } = recordingLog()
  const checks = await createChecks({ cache: createMemoryCache(), bus: createLocalBus(log), log, alone })
  cleanups.push(() => checks.close())
  return { checks, logged }
}

/** A process with Redis. */
async function openShared(url: string, prefix: string) {
  const { log, logged } = recordingLog()
  const [cache, bus] = await Promise.all([
    openRedisCache({ url, prefix, log }),
    openRedisBus({ url, prefix, log }),
  ])
  cleanups.push(() => Promise.all([cache.close(), bus.close()]))
  const checks = await createChecks({ cache, bus, log, alone: false })
  cleanups.push(() => checks.close())
  return { checks, cache, bus, logged }
}

describe('checks in one process', () => {
  test('are made once for many who ask at the same time, and remembered', async () => {
    const { checks } = await openLocal(true)
    const { record, load } = newRecord()
    const all = await Promise.all(Array.from({ length: 20 }, () => checks.read(KEY, load)))
    expect(all).toEqual(Array(20).fill('old'))
    await checks.read(KEY, load)
    expect(record.loads).toBe(1)
    forward(61_000)
    await checks.read(KEY, load)
    expect(record.loads).toBe(2)
  })

  test('are forgotten with the change', async () => {
    const { checks } = await openLocal(true)
    const { record, load } = newRecord()
    const other = newRecord('other')
    await checks.read(KEY, load)
    await checks.read('user:other', other.load)
    record.value = 'new'
    expect(await checks.forget(KEY)).toBe(true)
    expect(await checks.read(KEY, load)).toBe('new')
    await checks.read('user:other', other.load)
    expect(other.record.loads).toBe(1)
  })

  test('a refusal is remembered for less than a second', async () => {
    const { checks } = await openLocal(true)
    const { record, load } = newRecord()
    record.value = undefined
    for (let i = 0; i < 3; i++) expect(await checks.read(KEY, load)).toBeUndefined()
    expect(record.loads).toBe(1)
    record.value = 'new'
    forward(950)
    expect(await checks.read(KEY, load)).toBe('new')
  })

  test('one that began before a change is not remembered, and nobody who comes later waits for it', async () => {
    const { checks } = await openLocal(true)
    const { record, load } = newRecord()
    const slow = slowly(record)
    const early = checks.read(KEY, slow.load)
    record.value = 'new'
    await checks.forget(KEY)
    expect(await checks.read(KEY, load)).toBe('new')
    slow.end()
    expect(await early).toBe('old')
    expect(await checks.read(KEY, load)).toBe('new')
  })

  test('one that failed is made again, and all who waited for it are told', async () => {
    const { checks } = await openLocal(true)
    const broken = () => Promise.reject(new Error('no database'))
    const all = await Promise.allSettled([checks.read(KEY, broken), checks.read(KEY, broken)])
    expect(all.map(({ status }) => status)).toEqual(['rejected', 'rejected'])
    expect(await checks.read(KEY, newRecord().load)).toBe('old')
  })

  test('a clock that is set back makes nothing last longer', async () => {
    const { checks } = await openLocal(true)
    const { record, load } = newRecord()
    await checks.read(KEY, load)
    forward(-3_600_000)
    await checks.read(KEY, load)
    expect(record.loads).toBe(2)
  })

  test('the oldest go when there are very many', async () => {
    const { checks } = await openLocal(true)
    const { record, load } = newRecord()
    for (let i = 0; i <= 20_000; i++) await checks.read(`key-${i}`, load)
    record.loads = 0
    await checks.read('key-20000', load)
    expect(record.loads).toBe(0)
    await checks.read('key-0', load)
    expect(record.loads).toBe(1)
  })
})

describe('checks where others change the database unheard', () => {
  test('are made again within a second of the one before', async () => {
    const { checks } = await openLocal(false)
    const { record, load } = newRecord()
    await checks.read(KEY, load)
    record.value = 'new'
    expect(await checks.read(KEY, load)).toBe('old')
    forward(950)
    expect(await checks.read(KEY, load)).toBe('new')
  })

  test('a slow one counts from its beginning', async () => {
    const { checks } = await openLocal(false)
    const { record, load } = newRecord()
    const slow = slowly(record)
    const reading = checks.read(KEY, slow.load)
    record.value = 'new'
    forward(950)
    // who comes a second later does not wait for what began before
    expect(await checks.read(KEY, load)).toBe('new')
    slow.end()
    expect(await reading).toBe('old')
    expect(await checks.read(KEY, load)).toBe('new')
  })
})

describe.skipIf(redisUrl === null)('checks of two processes with one Redis', () => {
  const openTwo = async () => {
    const prefix = newRedisPrefix()
    const [one, two] = await Promise.all([1, 2].map(() => openShared(String(redisUrl), prefix)))
    if (one === undefined || two === undefined) throw new Error('two')
    // what is in the cache when a process starts is not believed
    forward(10_000)
    return { one, two, prefix }
  }

  test('what one has found the other need not look up', async () => {
    const { one, two } = await openTwo()
    const { record, load } = newRecord()
    await one.checks.read(KEY, load)
    expect(await two.checks.read(KEY, load)).toBe('old')
    expect(record.loads).toBe(1)
  })

  test('a change on one is known to the other at once', async () => {
    const { one, two } = await openTwo()
    const { record, load } = newRecord()
    await Promise.all([one.checks.read(KEY, load), two.checks.read(KEY, load)])
    record.value = undefined
    expect(await one.checks.forget(KEY)).toBe(true)
    expect(await one.checks.read(KEY, load)).toBeUndefined()
    await eventually(async () => expect(await two.checks.read(KEY, load)).toBeUndefined())
  })

  test('one that began before a change of the other is remembered nowhere', async () => {
    const { one, two } = await openTwo()
    const { record, load } = newRecord()
    const slow = slowly(record)
    const reading = two.checks.read(KEY, slow.load)
    // it has asked the cache, and waits for the database
    await two.cache.get('any')
    const heard = new Promise<void>((resolve) => void two.bus.subscribe('identity', () => resolve()))
    await two.cache.get('any')
    record.value = 'new'
    await one.checks.forget(KEY)
    await heard
    expect(await two.checks.read(KEY, load)).toBe('new')
    slow.end()
    expect(await reading).toBe('old')
    expect(await two.cache.get(KEY)).toBe('reload')
    for (const { checks } of [one, two]) expect(await checks.read(KEY, load)).toBe('new')
    expect(record.loads).toBeGreaterThanOrEqual(2)
  })

  test('a process that starts believes nothing that was found before', async () => {
    const { one, prefix } = await openTwo()
    const { record, load } = newRecord()
    await one.checks.read(KEY, load)
    record.value = 'new'
    const late = await openShared(String(redisUrl), prefix)
    expect(await late.checks.read(KEY, load)).toBe('new')
  })

  test('what others publish on the channel breaks nothing', async () => {
    const { one, two } = await openTwo()
    const { record, load } = newRecord()
    await one.checks.read(KEY, load)
    for (const text of ['', '{', 'null', '7', '{"a":1}', '[1,null,{}]', '"x"'])
      await two.bus.publish('identity', text)
    record.value = 'new'
    await two.checks.forget(KEY)
    await eventually(async () => expect(await one.checks.read(KEY, load)).toBe('new'))
    expect(one.logged.filter(({ level }) => level === 'error')).toEqual([])
  })

  test.each(['', '{', 'null', '7', '"x"', '{"at":"x"}'])(
    'a text in the cache that is no check (%j) is not believed',
    async (text) => {
      const { one } = await openTwo()
      await one.cache.set(KEY, text, { ttlMs: 60_000 })
      expect(await one.checks.read(KEY, newRecord().load)).toBe('old')
    },
  )
})

describe.skipIf(!redisServerAvailable('checks while Redis is away'))('checks while Redis is away', () => {
  let server: RedisServer
  let cable: TcpProxy
  const openTwo = async () => {
    server = await makeRedisServer()
    cleanups.push(() => server.remove())
    cable = await startTcpProxy({ host: '127.0.0.1', port: server.port })
    cleanups.push(() => cable.close())
    const one = await openShared(`redis://127.0.0.1:${cable.port}`, 'test:')
    const two = await openShared(server.url, 'test:')
    return { one, two }
  }

  test('killed: each process asks the database once a second, and all is well after', async () => {
    const { one, two } = await openTwo()
    const { record, load } = newRecord()
    await Promise.all([one, two].map(({ checks }) => checks.read(KEY, load)))
    await server.kill()
    await eventually(() => expect([one.bus.connected(), two.bus.connected()]).toEqual([false, false]))
    record.value = 'new'
    expect(await one.checks.forget(KEY)).toBe(false)
    expect(await one.checks.read(KEY, load)).toBe('new')
    forward(950)
    expect(await two.checks.read(KEY, load)).toBe('new')
    expect(one.logged.filter(({ message }) => message.includes('could not be told'))).toHaveLength(1)

    await server.start()
    await eventually(() => expect([one.bus.connected(), two.bus.connected()]).toEqual([true, true]))
    await eventually(async () => expect(await two.cache.get(KEY)).toBe('reload'))
    record.value = 'newer'
    expect(await two.checks.forget(KEY)).toBe(true)
    await eventually(async () => expect(await one.checks.read(KEY, load)).toBe('newer'))
  })

  test('cut off from one process alone: what it changed is told when the cable is back', async () => {
    const { one, two } = await openTwo()
    forward(10_000)
    const { record, load } = newRecord()
    await two.checks.read(KEY, load)
    cable.cut()
    await eventually(() => expect(one.bus.connected()).toBe(false))
    record.value = 'new'
    expect(await one.checks.forget(KEY)).toBe(false)
    expect(await one.checks.forget('user:other')).toBe(false)
    cable.restore()
    await eventually(async () => expect(await two.checks.read(KEY, load)).toBe('new'))
    expect(one.logged.filter(({ message }) => message.includes('could not be told'))).toHaveLength(1)
  })

  test('cut off from one process: what others changed meanwhile it does not take from the cache', async () => {
    const { one, two } = await openTwo()
    forward(10_000)
    const { record, load } = newRecord()
    await Promise.all([one, two].map(({ checks }) => checks.read(KEY, load)))
    const stale = String(await two.cache.get(KEY))
    cable.cut()
    await eventually(() => expect(one.bus.connected()).toBe(false))
    record.value = 'new'
    // as if who changed it had ended before it could tell
    await two.cache.set(KEY, stale, { ttlMs: 60_000 })
    forward(950)
    expect(await one.checks.read(KEY, load)).toBe('new')
    cable.restore()
    await eventually(() => expect(one.bus.connected()).toBe(true))
    expect(await one.checks.read(KEY, load)).toBe('new')
  })

  test('who ends with something untold tries once more', async () => {
    const { one, two } = await openTwo()
    forward(10_000)
    const { record, load } = newRecord()
    await two.checks.read(KEY, load)
    cable.cut()
    await eventually(() => expect(one.bus.connected()).toBe(false))
    record.value = 'new'
    vi.useFakeTimers({ toFake: ['setInterval', 'Date'], now: Date.now() })
    expect(await one.checks.forget(KEY)).toBe(false)
    cable.restore()
    vi.useRealTimers()
    await eventually(async () => expect(await one.cache.get('any')).toBeUndefined())
    await one.checks.close()
    await eventually(async () => expect(await two.checks.read(KEY, load)).toBe('new'))
  })
})
