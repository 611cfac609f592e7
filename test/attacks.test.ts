import type { AddressInfo } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import { describe, expect, test } from 'vitest'
import { createLimiter } from '../src/cache/limiter.ts'
import { createPasswords } from '../src/identity/passwords.ts'
import { createSignIn } from '../src/identity/sign-in.ts'
import { ACCOUNTS, bearer, newAccount } from './accounts.ts'
import { type Answer, describeApi, refusal } from './http.ts'
import { dial } from './raw-http.ts'

const EVIL = 'https://evil.example'
const FOREIGN: Record<string, string>[] = [
  { origin: EVIL },
  { origin: 'null' },
  { 'sec-fetch-site': 'cross-site' },
]
const statements: string[] = []

const jarOf = ({ headers }: Answer) =>
  [headers['set-cookie'] ?? []]
    .flat()
    .map((cookie) => String(cookie).split(';')[0])
    .join('; ')

describeApi(
  'attacks on sign-in and sessions',
  (api) => {
    const login = (username: string, password: string, headers = {}) =>
      api.call('POST', '/api/login', { username, password }, headers)
    const alive = async (token: string) =>
      (await api.call('GET', '/api/me', undefined, bearer(token))).status === 200

    test('an unknown user takes the work of a wrong password', async () => {
      const { username } = await newAccount(api.opened.tb)
      const work = async (name: string) => {
        statements.length = 0
        const { status, body } = await login(name, 'a wrong password')
        return {
          status,
          message: body.error.message,
          details: body.error.details,
          statements: [...statements],
        }
      }
      await work(username)
      const wrong = await work(username)
      expect(wrong.statements).toEqual(['users.account', 'audit.insert'])
      for (const name of ['nobody', 'nobody@example.com', 'x'.repeat(255), '\0'])
        expect(await work(name), name).toEqual({
          ...wrong,
          // it cannot even be asked for
          statements: name === '\0' ? ['audit.insert'] : wrong.statements,
        })
      // and the comparison, which is most of it
      const { tb } = api.opened
      let compared = 0
      const real = createPasswords(4)
      const passwords = {
        ...real,
        verify: (...args: Parameters<typeof real.verify>) => {
          compared++
          return real.verify(...args)
        },
      }
      const { audit, cache, identity } = tb
      const limiter = createLimiter(cache, { debug() {}, info() {}, warn() {}, error() {} })
      const { db } = api.opened.database
      const limits = ACCOUNTS.loginLimits
      const signIn = createSignIn(db, { audit, limiter, passwords, sessions: identity.sessions, limits })
      for (const name of [username, 'nobody', '\0']) {
        const before = compared
        await expect(signIn.signIn({ login: name, password: 'wrong' }, {})).rejects.toMatchObject({
          code: 'unauthorized',
        })
        expect(compared - before, name).toBe(1)
      }
    })

    test('what was typed is in no log and no audit entry', async () => {
      const { username, password } = await newAccount(api.opened.tb)
      const typed = ['typed-as-password-1', 'typed-as-username-2']
      await login(username, typed[0] as string)
      await login(typed[1] as string, password)
      await login(username, password)
      const entries = await api.opened.tb.audit.list({ limit: 200 })
      const written = JSON.stringify([api.logged, api.opened.logged, entries.items])
      for (const text of [...typed, password]) expect(written).not.toContain(text)
      expect(
        entries.items.filter(({ userId, action }) => userId === 'unknown' && action === 'sign_in_failed')
          .length,
      ).toBeGreaterThan(0)
    })

    test('of 50 refreshes with one token one wins, and the others end the session', async () => {
      const { tokens } = await newAccount(api.opened.tb)
      const refresh = () => api.call('POST', '/api/refresh', { refresh_token: tokens.refreshToken })
      const answers = await Promise.all(Array.from({ length: 50 }, refresh))
      const won = answers.filter(({ status }) => status === 200)
      expect(won).toHaveLength(1)
      expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([200, 401]))
      expect(await alive(tokens.accessToken)).toBe(false)
      expect(await alive(won[0]?.body.access_token)).toBe(false)
      const next = await api.call('POST', '/api/refresh', { refresh_token: won[0]?.body.refresh_token })
      expect(next.status).toBe(401)
    })

    test('an access token is no refresh token, and of a token of somebody else only its own session ends', async () => {
      const [anna, berta] = [await newAccount(api.opened.tb), await newAccount(api.opened.tb)]
      for (const path of ['/api/refresh', '/api/logout'])
        expect((await api.call('POST', path, { refresh_token: anna.tokens.accessToken })).status).toBe(401)
      const answer = await api.call(
        'POST',
        '/api/logout',
        { refresh_token: berta.tokens.refreshToken },
        anna.headers,
      )
      expect(answer.status).toBe(204)
      expect([await alive(anna.tokens.accessToken), await alive(berta.tokens.accessToken)]).toEqual([
        true,
        false,
      ])
      // a token that is used up ends no other sign-in any more
      const again = await login(berta.username, berta.password)
      await api.call('POST', '/api/logout', { refresh_token: berta.tokens.refreshToken, all: true })
      expect(await alive(again.body.access_token)).toBe(true)
    })

    test('changes that only a cookie vouches for need the token of that very session', async () => {
      const { username, password } = await newAccount(api.opened.tb)
      const other = await newAccount(api.opened.tb)
      const signedIn = await login(username, password, { 'sec-fetch-site': 'same-origin', host: 'localhost' })
      const cookie = jarOf(signedIn)
      const create = (headers: Record<string, string>) =>
        api.call('POST', '/api/threads', undefined, { cookie, host: 'localhost', ...headers })
      const theirs = await api.call('GET', '/api/me', undefined, other.headers)
      const mine = await api.call('GET', '/api/me', undefined, { cookie, host: 'localhost' })
      const token = mine.body.csrf_token
      expect(token).toBe(signedIn.body.csrf_token)
      for (const [what, headers] of Object.entries<Record<string, string>>({
        none: {},
        empty: { 'x-csrf-token': '' },
        invented: { 'x-csrf-token': 'x'.repeat(43) },
        'that of another session': { 'x-csrf-token': theirs.body.csrf_token },
        'the right one from a foreign page': { 'x-csrf-token': token, origin: EVIL },
        'the right one from a sandboxed page': { 'x-csrf-token': token, origin: 'null' },
        'the right one from another site': { 'x-csrf-token': token, 'sec-fetch-site': 'cross-site' },
        'the right one from a subdomain': { 'x-csrf-token': token, 'sec-fetch-site': 'same-site' },
        'the right one from another port': { 'x-csrf-token': token, origin: 'http://localhost:8080' },
      }))
        expect(refusal(await create(headers)), what).toMatchObject({ status: 403, code: 'forbidden' })
      expect((await create({ 'x-csrf-token': token, origin: 'http://localhost' })).status).toBe(201)
      for (const path of ['/api/login', '/api/refresh', '/api/logout', '/api/register'])
        for (const headers of FOREIGN)
          expect(
            (
              await api.call(
                'POST',
                path,
                { username, password },
                {
                  cookie,
                  host: 'localhost',
                  ...headers,
                },
              )
            ).status,
          ).not.toBe(200)
      expect((await create({ 'x-csrf-token': token })).status).toBe(201)
      // the host of the request says where it went, not where its page came from
      expect(
        (await create({ 'x-csrf-token': token, origin: EVIL, 'x-forwarded-host': 'evil.example' })).status,
      ).toBe(403)
    })

    test('names that become the same, and names that look like an address', async () => {
      const register = (username: string, email?: string) =>
        api.call('POST', '/api/register', {
          username,
          password: 'long enough',
          ...(email === undefined ? {} : { email }),
        })
      expect((await register('ﬁnn', 'Finn@Example.com')).body).toMatchObject({
        username: 'finn',
        email: 'finn@example.com',
      })
      for (const name of ['finn', 'FINN', 'ｆｉｎｎ']) expect((await register(name)).status, name).toBe(409)
      expect((await register('other', 'ＦＩＮＮ@example.com')).status).toBe(409)
      for (const name of ['finn＠example.com', 'finn﹫example.com', 'a\u00a8b', 'ﷺ'.repeat(200), 'a\u3000b'])
        expect(refusal(await register(name)), name).toEqual({
          status: 400,
          code: 'invalid_input',
          message: expect.stringMatching(/username must be/),
        })
      for (const email of ['a＠b@example.com', 'a\u00a8@example.com', `a@${'ﷺ'.repeat(100)}`])
        expect(refusal(await register('third', email)), email).toMatchObject({
          status: 400,
          message: expect.stringMatching(/email must be/),
        })
      expect((await login('ＦＩＮＮ@EXAMPLE.COM', 'long enough')).status).toBe(200)
    })
  },
  { auth: ACCOUNTS, trace: (name) => void statements.push(name) },
)

describeApi(
  'attacks on keys and rights',
  (api) => {
    test('a key makes no key that may do more', async () => {
      const chief = await newAccount(api.opened.tb, { isSuperuser: true })
      const make = async (scopes: string[], wanted: string[] | undefined) => {
        const body = { name: 'child', ...(wanted === undefined ? {} : { scopes: wanted }) }
        return (await api.call('POST', '/api/api-keys', body, bearer(await chief.key(scopes)))).status
      }
      expect(await make(['read', 'write'], ['read'])).toBe(403)
      expect(await make(['admin'], ['admin'])).toBe(201)
      expect(await make(['admin', 'read'], ['read'])).toBe(201)
      expect(await make(['admin'], ['read'])).toBe(403)
      // the default is read and write
      expect(await make(['admin', 'read'], undefined)).toBe(403)
      expect(await make(['admin', 'flow:a'], ['flow:b'])).toBe(403)
      expect(await make(['admin'], ['admin', 'ingest'])).toBe(403)
    })

    test('demotion, deactivation and a new password take effect with the next request', async () => {
      const { tb } = api.opened
      const by = { userId: 'tests', via: 'library' } as const
      const chief = await newAccount(tb, { isSuperuser: true })
      const key = bearer(await chief.key(['admin', 'read']))
      const users = (headers: Record<string, string>) =>
        api.call('GET', '/api/admin/users', undefined, headers)
      for (const headers of [chief.headers, key]) expect((await users(headers)).status).toBe(200)
      await tb.identity.users.update(by, chief.id, { isSuperuser: false })
      for (const headers of [chief.headers, key]) expect((await users(headers)).status).toBe(403)
      await tb.identity.users.update(by, chief.id, { isSuperuser: true, isActive: false })
      for (const headers of [chief.headers, key]) expect((await users(headers)).status).toBe(401)
      const login = await api.call('POST', '/api/login', {
        username: chief.username,
        password: chief.password,
      })
      expect(login.status).toBe(401)
      const refresh = await api.call('POST', '/api/refresh', { refresh_token: chief.tokens.refreshToken })
      expect(refresh.status).toBe(401)
      await tb.identity.users.update(by, chief.id, { isActive: true })
      // its sign-ins are over, its keys were never revoked
      expect([(await users(chief.headers)).status, (await users(key)).status]).toEqual([401, 200])
    })

    test('a request under way does not bring back what was revoked meanwhile', async () => {
      const user = await newAccount(api.opened.tb)
      for (let round = 0; round < 10; round++) {
        const { body } = await api.call('POST', '/api/api-keys', { name: 'k' }, user.headers)
        const read = () => api.call('GET', '/api/threads', undefined, bearer(body.api_key))
        const before = Array.from({ length: 8 }, read)
        const revoked = api.call('DELETE', `/api/api-keys/${body.id}`, undefined, user.headers)
        const during = Array.from({ length: 8 }, async (_, n) => {
          await delay(n % 3)
          return read()
        })
        await Promise.all([...before, revoked, ...during])
        for (let n = 0; n < 3; n++) expect((await read()).status).toBe(401)
      }
    })

    test('the same header twice, and a request to another name', async () => {
      const { tb } = api.opened
      const user = await newAccount(tb)
      const chief = await newAccount(tb, { isSuperuser: true })
      await api.app.listen({ host: '127.0.0.1', port: 0 })
      const { port } = api.app.server.address() as AddressInfo
      const send = async (path: string, ...headers: string[]) => {
        const client = dial(port)
        client.socket.write(
          `GET ${path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n${headers.map((line) => `${line}\r\n`).join('')}\r\n`,
        )
        await client.ended
        const [head = '', body = ''] = client.text().split('\r\n\r\n')
        return { status: Number(head.split(' ')[1]), head, body }
      }
      const line = (token: string) => `authorization: Bearer ${token}`
      // whichever counts, it is one of them and the whole of it
      const both = await send(
        '/api/admin/users',
        line(user.tokens.accessToken),
        line(chief.tokens.accessToken),
      )
      expect([400, 401, 403]).toContain(both.status)
      const key = await user.key(['read'])
      expect((await send('/api/threads', `x-api-key: ${key}`, `x-api-key: ${key}`)).status).toBe(401)
      // RFC 9112, section 3.2.2: the whole URL, which is the same route with the same rules
      const whole = await send('http://evil.example/api/threads', line(user.tokens.accessToken))
      expect(whole.status).toBe(200)
      expect(whole.head).toMatch(/cache-control: no-store/)
      expect((await send('http://evil.example/api/threads')).status).toBe(401)
      const read = await send(
        `http://evil.example/api/admin/users/${user.id}/%74hreads?limit=1`,
        line(chief.tokens.accessToken),
      )
      expect(read.status).toBe(200)
      const [entry] = (await tb.audit.list({ actorId: chief.id, action: 'data_read' })).items
      expect(entry).toMatchObject({ userId: user.id, target: 'threads' })
      for (const path of [
        '//evil.example/',
        '/\\evil.example',
        '/%2f%2fevil.example',
        '/docs/..//evil.example',
      ])
        expect((await send(path)).head, path).not.toMatch(/location:.*evil/i)
    })
  },
  { auth: ACCOUNTS },
)

describe('limits', () => {
  describeApi(
    'on requests',
    (api) => {
      test('are not got round by another spelling, another method or a claimed address', async () => {
        const user = await newAccount(api.opened.tb)
        const get = (url: string, headers = {}, method = 'GET') =>
          api.call(method, url, undefined, { ...user.headers, ...headers })
        for (let n = 0; n < 5; n++) expect((await get('/api/threads')).status).toBe(200)
        for (const [url, headers, method] of [
          ['/api/threads'],
          ['/api/threads?limit=1'],
          ['/api/%74hreads'],
          ['/%61pi/threads?x'],
          ['/api/threads', {}, 'HEAD'],
          ['/api/threads', { 'x-forwarded-for': '1.2.3.4' }],
          ['/api/threads', bearer(await user.key(['read']))],
        ] as [string, Record<string, string>?, string?][])
          expect((await get(url, headers, method)).status, `${method} ${url}`).toBe(429)
        for (const url of ['/api/threads/', '/API/threads', '/api//threads'])
          expect([400, 404]).toContain((await get(url)).status)
        // another endpoint, another user: their own limits
        expect((await get('/api/me')).status).toBe(200)
        expect(
          (await api.call('GET', '/api/threads', undefined, (await newAccount(api.opened.tb)).headers))
            .status,
        ).toBe(200)
      })

      test('of an address are not those of a user who is called like it', async () => {
        const { tb } = api.opened
        const id = 'address 127.0.0.1'
        await tb.identity.users.ensure({ id, provider: 'jwt' })
        const { key } = await tb.identity.keys.create(
          { userId: id },
          { userId: id, via: 'library' },
          { name: 'k' },
        )
        const seen = []
        for (let n = 0; n < 3; n++) {
          await api.call('GET', '/openapi.json')
          seen.push(
            (await api.call('GET', '/api/config/defaults', undefined, bearer(key))).headers[
              'ratelimit-remaining'
            ],
          )
        }
        expect(seen.map(Number)).toEqual([4, 3, 2])
        const keys = tb.limiter
        const at = (who: string) => keys.take(`${who}:GET /openapi.json`, { limit: 5, windowS: 60, by: 0 })
        expect((await at('ratelimit:address 127.0.0.1')).remaining).toBe(5)
      })
    },
    { auth: ACCOUNTS, rateLimitPerMinute: 5 },
  )

  describeApi(
    'on sign-ins',
    (api) => {
      test('that fail under the name of a counter do not keep a user from changing the password', async () => {
        const user = await newAccount(api.opened.tb)
        const { signIn } = api.opened.tb.identity
        for (const login of [`id:${user.id}`, `ID:${user.id}`])
          for (let n = 0; n < 4; n++)
            await expect(signIn.signIn({ login, password: 'x' }, {})).rejects.toThrow(/sign in|wrong/)
        const change = { current_password: user.password, new_password: 'a new password' }
        expect((await api.call('POST', '/api/me/password', change, user.headers)).status).toBe(204)
      })

      test('count every spelling of a name, and no claimed address makes a new one', async () => {
        const { username, password } = await newAccount(api.opened.tb)
        const attempt = (name: string, n: number) =>
          api.call(
            'POST',
            '/api/login',
            { username: name, password: 'wrong' },
            { 'x-forwarded-for': `1.2.3.${n}`, 'x-real-ip': `1.2.3.${n}` },
          )
        const spellings = [username, username.toUpperCase(), username.replace('u', 'ｕ')]
        const statuses = []
        for (let n = 0; n < 6; n++) statuses.push((await attempt(spellings[n % 3] as string, n)).status)
        expect(statuses).toEqual([401, 401, 401, 429, 429, 429])
        // also for the right password, or else it could be told from the answer
        const right = await api.call('POST', '/api/login', { username, password })
        expect(right.status).toBe(429)
        expect(Number(right.headers['retry-after'])).toBeGreaterThan(0)
        const names = Array.from({ length: 12 }, (_, n) => `nobody-${n}`)
        const sprayed: number[] = []
        for (const [n, name] of names.entries()) sprayed.push((await attempt(name, n)).status)
        expect(sprayed.at(-1)).toBe(429)
      })
    },
    { auth: { ...ACCOUNTS, loginLimits: { perUser: 3, perAddress: 10 } } },
  )
})
