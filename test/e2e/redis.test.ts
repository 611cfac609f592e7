import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { makeRedisServer, type RedisServer, redisServerAvailable } from '../redis-server.ts'
import { availableStores, cleanUpAfterAll, run, serve, stop } from './processes.ts'

cleanUpAfterAll()

describe.skipIf(!redisServerAvailable('serve with Redis'))('serve with Redis', () => {
  const store = availableStores.at(-1)
  const password = 'horse-battery'
  let server: RedisServer
  let env: Record<string, string | undefined>
  beforeAll(async () => {
    const deaf = ['--user', 'deaf', 'on', `>${password}`, '~*', 'resetchannels', '+@all']
    server = await makeRedisServer({ settings: ['--requirepass', password, ...deaf] })
    const REDIS_URL = `redis://:${password}@127.0.0.1:${server.port}`
    env = { ...(await store?.newEnv()), REDIS_URL, LOG_LEVEL: 'trace' }
  })
  afterAll(() => server?.remove())

  test('says where it is, never how to get in, and ends at once', async () => {
    const served = await serve(env)
    expect(served.stdout()).toContain(`  cache   Redis at 127.0.0.1:${server.port}\n`)
    expect(await stop(served)).toEqual({ code: 0, signal: null })
    expect(served.stdout() + served.stderr()).not.toContain(password)
  })

  test('a user of Redis who may not listen is told so, and the process ends', async () => {
    const REDIS_URL = `redis://deaf:${password}@127.0.0.1:${server.port}`
    const { code, stderr } = await run(['serve', '--port', '0'], { ...env, REDIS_URL })
    expect(code).toBe(7)
    expect(stderr).toMatch(/^threadbase: .*NOPERM/m)
    expect(stderr).not.toContain(password)
  })

  test.each([
    ['halted', () => server.hang(), () => server.resume()],
    ['gone', () => server.kill(), () => server.start()],
  ])('Redis %s: it starts, answers, says so once for each use, and ends', async (_, begin, end) => {
    await begin()
    const served = await serve(env)
    expect((await fetch(`${served.url}/api/threads`)).status).toBe(200)
    expect(await stop(served)).toEqual({ code: 0, signal: null })
    const warnings = served.stderr().match(/"msg":"the (cache|bus) is away[^"]*"/g)
    expect(warnings).toHaveLength(2)
    expect(served.stdout() + served.stderr()).not.toContain(password)
    await end()
  })
})
