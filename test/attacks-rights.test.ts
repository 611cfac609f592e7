import type { AddressInfo } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import { describe, expect, test } from 'vitest'
import { ACCOUNTS, bearer, newAccount } from './accounts.ts'
import { describeApi } from './http.ts'
import { dial } from './raw-http.ts'

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

    test('a key that expires makes no key that outlives it', async () => {
      const user = await newAccount(api.opened.tb)
      const at = (s: number) => new Date(Date.now() + s * 1_000).toISOString()
      const make = (body: object, headers: Record<string, string>) =>
        api.call('POST', '/api/api-keys', { name: 'k', scopes: ['admin'], ...body }, headers)
      const first = await make({ expires_at: at(3_600) }, user.headers)
      const key = bearer(first.body.api_key)
      for (const body of [{}, { expires_at: null }, { expires_at: at(7_200) }])
        expect((await make(body, key)).status).toBe(403)
      expect((await make({ expires_at: 'soon' }, key)).status).toBe(400)
      expect((await make({ expires_at: at(1_800) }, key)).status).toBe(201)
    })

    test('demotion and deactivation take effect with the next request', async () => {
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

    test('a new password ends the sign-ins that the old one opened', async () => {
      const user = await newAccount(api.opened.tb)
      const change = { current_password: user.password, new_password: 'a new password' }
      const { body } = await api.call('POST', '/api/login', {
        username: user.username,
        password: user.password,
      })
      const me = (token: string) => api.call('GET', '/api/me', undefined, bearer(token))
      expect((await me(body.access_token)).status).toBe(200)
      expect((await api.call('POST', '/api/me/password', change, user.headers)).status).toBe(204)
      // all but the one that changed it
      expect([(await me(body.access_token)).status, (await me(user.tokens.accessToken)).status]).toEqual([
        401, 200,
      ])
      const chief = await newAccount(api.opened.tb, { isSuperuser: true })
      const reset = await api.call(
        'POST',
        `/api/admin/users/${user.id}/password`,
        { password: 'set by chief' },
        chief.headers,
      )
      expect([reset.status, (await me(user.tokens.accessToken)).status]).toEqual([204, 401])
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
