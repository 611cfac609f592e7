import { setTimeout as delay } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { newRedisPrefix, newSchemaName, postgresUrl, redisUrl, testRls } from '../harness.ts'
import type { Json } from '../http.ts'
import { makeRedisServer, type RedisServer, redisServerAvailable } from '../redis-server.ts'
import { cleanUpAfterAll, type Environment, run, type Served, serve, stop } from './processes.ts'

cleanUpAfterAll()

const PASSWORD = 'correct horse'
const LIMIT = 200
/** The promise is a second; the rest is for two busy processes to answer in. */
const SOON_MS = 2_500

const newEnv = (more: Environment): Environment => ({
  DATABASE_URL: String(postgresUrl),
  DATABASE_SCHEMA: newSchemaName(),
  DATABASE_RLS: testRls,
  AUTH_MODE: 'accounts',
  AUTH_SECRET: 'a-secret-of-both-servers-a-secret-of-both',
  BCRYPT_COST: '4',
  RATE_LIMIT_PER_MINUTE: String(LIMIT),
  ...more,
})

type Pair = { env: Environment; one: Served; two: Served; admin: Headers }
type Headers = Record<string, string>

async function openPair(more: Environment): Promise<Pair> {
  const env = newEnv(more)
  const create = ['users', 'create', 'root', '--password', PASSWORD, '--superuser']
  expect(await run(create, env)).toMatchObject({ code: 0 })
  const [one, two] = await Promise.all([serve(env), serve(env)])
  const { body } = await call(one, 'POST', '/api/login', { username: 'root', password: PASSWORD })
  return { env, one, two, admin: bearer(body.access_token) }
}

const bearer = (token: string): Headers => ({ authorization: `Bearer ${token}` })

async function call(server: Served, method: string, path: string, body?: object, headers: Headers = {}) {
  const answer = await fetch(server.url + path, {
    method,
    headers: { ...(body === undefined ? {} : { 'content-type': 'application/json' }), ...headers },
    body: body === undefined ? null : JSON.stringify(body),
  })
  const text = await answer.text()
  const json: Json = text === '' ? undefined : JSON.parse(text)
  return { status: answer.status, headers: answer.headers, body: json }
}

const statusOfMe = async (server: Served, headers: Headers) =>
  (await call(server, 'GET', '/api/me', undefined, headers)).status

/** How long it takes until the server refuses the credential. */
async function msUntilRefused(server: Served, headers: Headers): Promise<number> {
  const began = performance.now()
  for (;;) {
    const asked = performance.now() - began
    if ((await statusOfMe(server, headers)) === 401) return asked
    if (asked > 20_000) throw new Error('it is not refused within 20 s')
    await delay(25)
  }
}

let count = 0

/** A user, signed in on one server and known to both. */
async function newUser({ one, two, admin }: Pair) {
  const username = `user${++count}`
  const { body: user } = await call(one, 'POST', '/api/admin/users', { username, password: PASSWORD }, admin)
  const { body: tokens } = await call(one, 'POST', '/api/login', { username, password: PASSWORD })
  const session = bearer(tokens.access_token)
  const { body: made } = await call(one, 'POST', '/api/api-keys', { name: 'k' }, session)
  const key: Headers = { 'x-api-key': made.api_key }
  for (const server of [one, two])
    for (const headers of [session, key]) expect(await statusOfMe(server, headers)).toBe(200)
  return { id: String(user.id), username, tokens, session, key, keyId: String(made.id) }
}

type User = Awaited<ReturnType<typeof newUser>>
type Revocation = [
  what: string,
  act: (pair: Pair, user: User) => Promise<unknown>,
  refused: ('session' | 'key')[],
]

const REVOCATIONS: Revocation[] = [
  ['a logout', ({ one }, { session }) => call(one, 'POST', '/api/logout', {}, session), ['session']],
  [
    'the revocation of a key',
    ({ one }, { keyId, session }) => call(one, 'DELETE', `/api/api-keys/${keyId}`, undefined, session),
    ['key'],
  ],
  [
    'a deactivation',
    ({ one, admin }, { id }) => call(one, 'PATCH', `/api/admin/users/${id}`, { is_active: false }, admin),
    ['session', 'key'],
  ],
  [
    'a deactivation on the command line',
    async ({ env }, { username }) =>
      expect(await run(['users', 'deactivate', username], env)).toMatchObject({ code: 0 }),
    ['session', 'key'],
  ],
  [
    'a reset of the password',
    ({ one, admin }, { id }) =>
      call(one, 'POST', `/api/admin/users/${id}/password`, { password: 'another horse' }, admin),
    ['session'],
  ],
  [
    'a refresh token that is used twice',
    async ({ one }, { tokens }) => {
      const body = { refresh_token: tokens.refresh_token }
      for (let i = 0; i < 2; i++) await call(one, 'POST', '/api/refresh', body)
    },
    ['session'],
  ],
]

/** What is revoked on one server is refused by the other within a second. */
async function expectRevoked(pair: Pair, [what, act, refused]: Revocation): Promise<void> {
  const user = await newUser(pair)
  await act(pair, user)
  for (const which of refused)
    expect(await msUntilRefused(pair.two, user[which]), `${what}: ${which}`).toBeLessThan(SOON_MS)
  const left = (['session', 'key'] as const).filter((which) => !refused.includes(which))
  for (const which of left) expect(await statusOfMe(pair.two, user[which]), what).toBe(200)
}

const setups: [name: string, available: boolean, env: () => Environment][] = [
  ['one PostgreSQL', postgresUrl !== null, () => ({})],
  [
    'one PostgreSQL and one Redis',
    postgresUrl !== null && redisUrl !== null,
    () => ({ REDIS_URL: String(redisUrl), REDIS_PREFIX: newRedisPrefix() }),
  ],
]

for (const [name, available, more] of setups) {
  describe.skipIf(!available)(`two servers on ${name}`, () => {
    let pair: Pair
    beforeAll(async () => {
      pair = await openPair(more())
    })
    afterAll(async () => {
      if (pair !== undefined) await Promise.all([stop(pair.one), stop(pair.two)])
    })

    test.each(REVOCATIONS)('%s on one is known to the other within a second', async (...revocation) => {
      await expectRevoked(pair, revocation)
    })

    test('a new password on one ends the other sessions on both, and keeps the one that set it', async () => {
      const user = await newUser(pair)
      const { body } = await call(pair.two, 'POST', '/api/login', {
        username: user.username,
        password: PASSWORD,
      })
      const own = bearer(body.access_token)
      const change = { current_password: PASSWORD, new_password: 'another horse' }
      expect((await call(pair.two, 'POST', '/api/me/password', change, own)).status).toBe(204)
      expect(await msUntilRefused(pair.one, user.session)).toBeLessThan(SOON_MS)
      for (const server of [pair.one, pair.two]) expect(await statusOfMe(server, own)).toBe(200)
    })

    test('who is demoted on one is no superuser on the other within a second', async () => {
      const user = await newUser(pair)
      const path = `/api/admin/users/${user.id}`
      await call(pair.one, 'PATCH', path, { is_superuser: true }, pair.admin)
      const listing = async () =>
        (await call(pair.two, 'GET', '/api/admin/users', undefined, user.session)).status
      await vi.waitFor(async () => expect(await listing()).toBe(200), { timeout: SOON_MS, interval: 50 })
      await call(pair.one, 'PATCH', path, { is_superuser: false }, pair.admin)
      await vi.waitFor(async () => expect(await listing()).toBe(403), { timeout: SOON_MS, interval: 50 })
    })
  })
}

describe.skipIf(postgresUrl === null || redisUrl === null)('limits of two servers', () => {
  let pair: Pair
  beforeAll(async () => {
    pair = await openPair({ REDIS_URL: String(redisUrl), REDIS_PREFIX: newRedisPrefix() })
  })
  afterAll(async () => {
    if (pair !== undefined) await Promise.all([stop(pair.one), stop(pair.two)])
  })

  test('count the requests of a user on both', async () => {
    const { session, key } = await newUser(pair)
    const ask = (server: Served, headers: Headers) => call(server, 'GET', '/api/threads', undefined, headers)
    const half = (server: Served, headers: Headers) =>
      Promise.all(Array.from({ length: LIMIT / 2 }, () => ask(server, headers)))
    const all = [...(await half(pair.one, session)), ...(await half(pair.two, key))]
    expect(all.map(({ status }) => status)).toEqual(Array(LIMIT).fill(200))
    for (const server of [pair.one, pair.two]) {
      const { status, headers } = await ask(server, session)
      expect(status).toBe(429)
      expect(Number(headers.get('retry-after'))).toBeGreaterThan(0)
      expect(headers.get('ratelimit-remaining')).toBe('0')
      // another endpoint, and another user, have their own
      expect(await statusOfMe(server, session)).toBe(200)
      expect((await ask(server, pair.admin)).status).toBe(200)
    }
  })

  test('count the wrong passwords for a user on both; then the right one is refused, too', async () => {
    const { username } = await newUser(pair)
    const attempt = (server: Served, password: string) =>
      call(server, 'POST', '/api/login', { username, password })
    for (let i = 0; i < 5; i++)
      for (const server of [pair.one, pair.two])
        expect((await attempt(server, `wrong ${i}`)).status).toBe(401)
    for (const server of [pair.one, pair.two])
      expect(await attempt(server, PASSWORD)).toMatchObject({
        status: 429,
        body: { error: { code: 'rate_limited' } },
      })
  })

  test('kill -9 right after a login: its tokens are good on the other', async () => {
    const third = await serve(pair.env)
    const user = await newUser(pair)
    const { body } = await call(third, 'POST', '/api/login', { username: user.username, password: PASSWORD })
    third.kill('SIGKILL')
    expect(await statusOfMe(pair.one, bearer(body.access_token))).toBe(200)
    const refreshed = await call(pair.two, 'POST', '/api/refresh', { refresh_token: body.refresh_token })
    expect(refreshed.status).toBe(200)
    expect(await statusOfMe(pair.one, bearer(refreshed.body.access_token))).toBe(200)
  })
})

const runsRedis = redisServerAvailable('two servers whose Redis is killed')

describe.skipIf(postgresUrl === null || !runsRedis)('two servers whose Redis is killed', () => {
  let redis: RedisServer
  let pair: Pair
  beforeAll(async () => {
    redis = await makeRedisServer()
    pair = await openPair({ REDIS_URL: redis.url })
  })
  afterAll(async () => {
    if (pair !== undefined) await Promise.all([stop(pair.one), stop(pair.two)])
    await redis?.remove()
  })

  test('go on, revoke within a second all the same, say so once, and are well when it is back', async () => {
    const before = await newUser(pair)
    await redis.kill()
    for (const server of [pair.one, pair.two]) expect(await statusOfMe(server, before.session)).toBe(200)
    for (const revocation of REVOCATIONS) await expectRevoked(pair, revocation)
    for (const server of [pair.one, pair.two]) {
      const said = (text: string) => server.stderr().split(text).length - 1
      expect(said('limits are counted in this process')).toBe(1)
      expect(said('the cache is away')).toBe(1)
      expect(said('the bus is away')).toBe(1)
      expect(said('"level":50')).toBe(0)
    }

    await redis.start()
    const isBack = (server: Served) => server.stderr().includes('the bus is back')
    await vi.waitFor(() => expect([pair.one, pair.two].map(isBack)).toEqual([true, true]), {
      timeout: 20_000,
    })
    for (const server of [pair.one, pair.two]) expect(await statusOfMe(server, before.session)).toBe(200)
    for (const revocation of REVOCATIONS) await expectRevoked(pair, revocation)
    expect(pair.one.stderr()).toContain('limits are counted in the cache again')
  })
})
