import { existsSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { newSchemaName, postgresUrl } from '../harness.ts'
import {
  availableStores,
  cleanUpAfterAll,
  newDataDir,
  run,
  runHere,
  serve,
  stop,
  temporaryDirectory,
} from './processes.ts'

cleanUpAfterAll()

describe('serve refuses', () => {
  test('an address that is not loopback, or not an address', async () => {
    const DATA_DIR = await temporaryDirectory()
    for (const HOST of [
      '0.0.0.0',
      '::',
      '192.168.1.1',
      'example.com',
      'localhost:80',
      '[::1]',
      '127.0.0.1.evil.example',
    ]) {
      const { code, stdout, stderr } = await runHere(['serve', '--port', '0'], { DATA_DIR, HOST })
      expect([code, stdout], HOST).toEqual([2, ''])
      expect(stderr, HOST).toMatch(/^threadbase: HOST .*loopback/)
    }
    expect(existsSync(join(DATA_DIR, 'pg'))).toBe(false)
    const option = await runHere(['serve', '--host', '0.0.0.0'], { DATA_DIR })
    expect(option).toMatchObject({ code: 2, stderr: expect.stringContaining('loopback') })
  })

  test('a loopback address that this machine does not have, in one line', async () => {
    const { code, stderr } = await runHere(['serve', '--port', '0'], {
      DATA_DIR: await newDataDir(),
      HOST: '127.999.1.1',
    })
    expect(code).toBe(2)
    expect(stderr.trim().split('\n').at(-1)).toMatch(/^threadbase: cannot listen on 127\.999\.1\.1: \w+/)
    expect(stderr).not.toContain('    at ')
  })

  test('a port that is in use, and gives the data directory back', async () => {
    const blocker = createServer()
    await new Promise<void>((resolve) => blocker.listen(0, '127.0.0.1', resolve))
    const address = blocker.address()
    const PORT = String(typeof address === 'object' ? address?.port : 0)
    const DATA_DIR = await newDataDir()
    const { code, stdout, stderr } = await runHere(['serve'], { DATA_DIR, PORT, LOG_LEVEL: 'silent' })
    expect([code, stdout]).toEqual([5, ''])
    expect(stderr).toBe(
      `threadbase: port ${PORT} on 127.0.0.1 is in use: stop what listens there or set PORT\n`,
    )
    expect(existsSync(join(DATA_DIR, 'lock'))).toBe(false)
    blocker.close()
  })

  test('a data directory that another process has, and names it', async () => {
    const DATA_DIR = await newDataDir()
    const first = await serve({ DATA_DIR })
    for (const args of [
      ['serve', '--port', '0'],
      ['db', 'current'],
    ]) {
      const { code, stderr } = await run(args, { DATA_DIR, LOG_LEVEL: 'silent' })
      expect(code, args.join(' ')).toBe(5)
      expect(stderr).toContain(`in use by process ${first.pid}`)
    }
    expect((await fetch(`${first.url}/ready`)).status).toBe(200)
    await stop(first)
  })

  test.each([
    [{ NODE_ENV: 'production' }, 'NODE_ENV=production needs DATABASE_URL'],
    [{ PORT: 'x' }, 'PORT must be a whole number'],
    [{ PORT: '70000' }, 'PORT must be between 0 and 65535'],
    [{ LOG_LEVEL: 'loud' }, 'LOG_LEVEL must be one of'],
    [{ AUTH_MODE: 'none' }, 'AUTH_MODE must be one of'],
    [{ DATABASE_MIGRATE: 'maybe' }, 'DATABASE_MIGRATE must be true or false'],
    [{ DATABASE_POOL_SIZE: '0' }, 'DATABASE_POOL_SIZE must be between'],
    [{ DATABASE_SCHEMA: 'a"b' }, 'DATABASE_SCHEMA must be'],
    [{ DEFAULT_TEMPERATURE: 'hot' }, 'DEFAULT_TEMPERATURE must be a number'],
    [{ DEFAULT_MODEL: 'm'.repeat(256) }, 'DEFAULT_MODEL must not be longer'],
    [{ BODY_LIMIT_MB: '-1' }, 'BODY_LIMIT_MB must be between'],
    [{ DATABASE_URL: 'mysql://u:hunter2@h/d' }, 'DATABASE_URL must be a postgres:// URL'],
    [{ DATABASE_URL: 'json:' }, 'DATABASE_URL json: must name a directory'],
    [{ DATABASE_URL: 'json:./data', AUTH_MODE: 'accounts' }, 'AUTH_MODE=accounts needs a database'],
    [{ DATABASE_URL: 'json:./data', NODE_ENV: 'production' }, 'NODE_ENV=production needs a DATABASE_URL'],
  ])('%j', async (env, message) => {
    const { code, stdout, stderr } = await runHere(['serve'], {
      DATA_DIR: await temporaryDirectory(),
      ...env,
    })
    expect([code, stdout]).toEqual([2, ''])
    expect(stderr).toContain(`threadbase: ${message}`)
    expect(stderr.trim().split('\n')).toHaveLength(1)
  })

  test('an empty database when it may not migrate', async () => {
    const env = await availableStores.at(-1)?.newEnv()
    const { code, stdout, stderr } = await runHere(['serve'], {
      ...env,
      DATABASE_MIGRATE: 'false',
      LOG_LEVEL: 'silent',
    })
    expect([code, stdout]).toEqual([7, ''])
    expect(stderr).toMatch(
      /^threadbase: the database is at revision none and this version needs \d+: run `threadbase db upgrade`\n$/,
    )
  })
})

describe('a password in DATABASE_URL', () => {
  const secret = 'hunter2'

  test.each([
    ['a server that is not there', `postgres://u:${secret}@127.0.0.1:1/d`],
    ['a host that is not there', `postgres://u:${secret}@no-such-host.invalid/d`],
    ['an unquoted @', `postgres://u:${secret}@x@127.0.0.1:1/d`],
    ['an unquoted #', `postgres://u:${secret}#x@127.0.0.1:1/d`],
    ['an unquoted /', `postgres://u:${secret}/x@127.0.0.1:1/d`],
    ['a broken escape', `postgres://u:${secret}%zz@127.0.0.1:1/d`],
    ['a port that is none', `postgres://u:${secret}@127.0.0.1:99999/d`],
    ['a parameter', `postgres://127.0.0.1:1/d?user=u&password=${secret}`],
    ['a socket', `postgres://u:${secret}@%2Fno%2Fsuch%2Fdirectory/d`],
    ['a bad parameter', `postgres://u:${secret}@127.0.0.1:1/d?sslmode=verify-full&sslrootcert=/no/such/file`],
  ])('is not printed when it cannot connect: %s', async (_, DATABASE_URL) => {
    const { code, stdout, stderr } = await runHere(['serve'], {
      DATABASE_URL,
      DATABASE_START_TIMEOUT_S: '0',
      LOG_LEVEL: 'trace',
    })
    expect(code).toBeGreaterThan(1)
    expect(stdout).toBe('')
    expect(stderr).toMatch(/threadbase: .*DATABASE_URL/)
    expect(stderr).not.toContain(secret)
    expect(stderr).not.toContain('    at ')
  })

  test.skipIf(postgresUrl === null)('is not printed while it serves, refuses and fails', async () => {
    const url = new URL(String(postgresUrl))
    url.password = secret
    const env = { DATABASE_URL: url.href, DATABASE_SCHEMA: newSchemaName(), LOG_LEVEL: 'trace' }
    const server = await serve(env)
    for (const path of ['/ready', '/api/threads', '/api/threads/x', '/openapi.json', '/docs', '/nope']) {
      const answer = await fetch(server.url + path)
      expect(await answer.text()).not.toContain(secret)
      for (const [, value] of answer.headers) expect(value).not.toContain(secret)
    }
    await stop(server)
    expect(server.stderr()).toContain('"route":"/api/threads"')
    expect(server.stdout() + server.stderr()).not.toContain(secret)

    url.pathname = '/no_such_database'
    const refused = await runHere(['serve'], { ...env, DATABASE_URL: url.href })
    expect(refused.code).toBe(7)
    expect(refused.stderr).toContain('has no such database')
    expect(refused.stdout + refused.stderr).not.toContain(secret)
  })
})
