import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import * as tls from 'node:tls'
import { inspect } from 'node:util'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest'
import { openRedisBus } from '../src/bus/redis.ts'
import { openRedisCache } from '../src/cache/redis.ts'
import { makeTempDir, recordingLog } from './harness.ts'
import { freePort } from './postgres-cluster.ts'
import { makeRedisServer, type RedisServer, redisServerAvailable } from './redis-server.ts'

const PASSWORD = 'correct/horse@battery'
const WRONG = 'staple-guess'
const LONG = { ttlMs: 60_000 }

describe.skipIf(!redisServerAvailable('Redis with a password'))('Redis with a password', () => {
  let server: RedisServer
  const said: unknown[][] = []
  beforeAll(async () => {
    const user = ['--user', 'reader', 'on', `>${PASSWORD}`, '~*', 'resetchannels', '+@all']
    server = await makeRedisServer({ settings: ['--requirepass', PASSWORD, ...user] })
  })
  afterAll(() => server?.remove())
  beforeEach(() => {
    said.length = 0
    for (const method of ['log', 'warn', 'error'] as const) {
      vi.spyOn(console, method).mockImplementation((...args) => void said.push(args))
    }
  })
  afterEach(() => void vi.restoreAllMocks())

  const urlWith = (credentials: string) => `redis://${credentials}127.0.0.1:${server.port}`

  test('works with it, in a URL that escapes it', async () => {
    const { log, logged } = recordingLog()
    const options = { url: urlWith(`:${encodeURIComponent(PASSWORD)}@`), prefix: 't:', log }
    const [cache, bus] = await Promise.all([openRedisCache(options), openRedisBus(options)])
    await cache.set('a', 'b', LONG)
    expect(await cache.get('a')).toBe('b')
    expect(bus.connected()).toBe(true)
    expect(inspect([cache.description, bus.description, logged])).not.toContain('horse')
    await Promise.all([cache.close(), bus.close()])
  })

  test.each([
    ['a wrong one', `:${WRONG}@`, 'WRONGPASS'],
    ['an unknown user', `nobody:${WRONG}@`, 'WRONGPASS'],
    ['none', '', 'NOAUTH'],
  ])('%s: away, with the reason and without the password', async (_, credentials, reason) => {
    const { log, logged } = recordingLog()
    const options = { url: urlWith(credentials), prefix: 't:', log, startTimeoutMs: 300 }
    const [cache, bus] = await Promise.all([openRedisCache(options), openRedisBus(options)])
    expect(logged.map(({ level, facts }) => ({ level, facts }))).toEqual([
      { level: 'warn', facts: { reason } },
      { level: 'warn', facts: { reason } },
    ])
    const error = await cache.get('a').catch((thrown: unknown) => thrown)
    expect(error).toMatchObject({ code: 'unavailable', details: { reason } })
    expect(bus.connected()).toBe(false)
    const everything = inspect([error, logged, said, cache, bus], { depth: 10, showHidden: true })
    expect(everything).not.toContain(WRONG)
    await Promise.all([cache.close(), bus.close()])
  })

  test('a channel that its user may not listen to is refused, and nobody is left to believe otherwise', async () => {
    const { log } = recordingLog()
    const url = urlWith(`reader:${encodeURIComponent(PASSWORD)}@`)
    const bus = await openRedisBus({ url, prefix: 't:', log })
    expect(bus.connected()).toBe(true)
    const listening = bus.subscribe('channel', () => {})
    await expect(listening).rejects.toMatchObject({ code: 'unavailable', details: { reason: 'NOPERM' } })
    await expect(bus.publish('channel', 'x')).rejects.toMatchObject({ details: { reason: 'NOPERM' } })
    await bus.close()
  })
})

describe.skipIf(!redisServerAvailable('Redis with TLS', ['openssl']))('Redis with TLS', () => {
  let server: RedisServer
  let directory: string
  let tlsPort: number
  const trusted = tls.getCACertificates('default')
  beforeAll(async () => {
    directory = await makeTempDir()
    const [key, cert] = [join(directory, 'key.pem'), join(directory, 'cert.pem')]
    const names = 'subjectAltName=IP:127.0.0.1,DNS:localhost'
    const request = ['req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '2', '-subj', '/CN=localhost']
    execFileSync('openssl', [...request, '-addext', names, '-keyout', key, '-out', cert], { stdio: 'ignore' })
    tlsPort = await freePort()
    const files = ['--tls-cert-file', cert, '--tls-key-file', key, '--tls-ca-cert-file', cert]
    const settings = ['--tls-port', String(tlsPort), '--tls-auth-clients', 'no', ...files]
    server = await makeRedisServer({ settings })
  })
  afterAll(async () => {
    tls.setDefaultCACertificates(trusted)
    await server?.remove()
    await rm(directory, { recursive: true, force: true })
  })

  test.each(['127.0.0.1', 'localhost'])(
    'rediss://%s: a certificate that nobody vouches for is refused',
    async (host) => {
      const { log, logged } = recordingLog()
      const url = `rediss://${host}:${tlsPort}`
      const cache = await openRedisCache({ url, prefix: 't:', log, startTimeoutMs: 300 })
      expect(logged).toMatchObject([{ level: 'warn', facts: { reason: 'DEPTH_ZERO_SELF_SIGNED_CERT' } }])
      await expect(cache.get('a')).rejects.toMatchObject({ code: 'unavailable' })
      await cache.close()
    },
  )

  test.each(['127.0.0.1', 'localhost'])('rediss://%s: one that is trusted works', async (host) => {
    tls.setDefaultCACertificates([...trusted, readFileSync(join(directory, 'cert.pem'), 'utf8')])
    const { log, logged } = recordingLog()
    const options = { url: `rediss://${host}:${tlsPort}`, prefix: 't:', log }
    const [cache, bus] = await Promise.all([openRedisCache(options), openRedisBus(options)])
    await cache.set('a', 'b', LONG)
    expect(await cache.get('a')).toBe('b')
    const heard: string[] = []
    await bus.subscribe('channel', (message) => void heard.push(message))
    await bus.publish('channel', 'hello')
    await vi.waitFor(() => expect(heard).toEqual(['hello']))
    expect(logged).toEqual([])
    await Promise.all([cache.close(), bus.close()])
  })
})
