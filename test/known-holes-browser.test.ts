import { beforeAll, expect, test } from 'vitest'
import { parseConfig } from '../src/config.ts'
import { ACCOUNTS, type Account, newAccount } from './accounts.ts'
import { describeApi } from './http.ts'

const APP = 'https://app.example.com'
const EVIL = 'https://evil.example'

const corsOf = (headers: object) => Object.keys(headers).filter((name) => name.startsWith('access-control-'))
const cookiesOf = (headers: Record<string, unknown>): string[] =>
  [headers['set-cookie'] ?? []].flat().map(String)
/** A `cookie` header of what a sign-in set. */
const jarOf = (headers: Record<string, unknown>) =>
  cookiesOf(headers)
    .map((cookie) => cookie.split(';')[0])
    .join('; ')

describeApi(
  'holes that a browser opens',
  (api) => {
    let other: Account
    beforeAll(async () => {
      other = await newAccount(api.opened.tb)
    })

    test('tokens that scripts can read', async () => {
      const { username, password } = other
      const secure = await api.call(
        'POST',
        '/api/login',
        { username, password },
        { origin: APP, host: 'app.example.com', 'sec-fetch-site': 'same-origin' },
      )
      expect(secure.status).toBe(200)
      const cookies = cookiesOf(secure.headers)
      expect(cookies.map((cookie) => cookie.split('=')[0])).toEqual([
        '__Host-threadbase_access',
        '__Host-threadbase_refresh',
      ])
      for (const cookie of cookies) {
        expect(cookie).toMatch(/; HttpOnly/)
        expect(cookie).toMatch(/; SameSite=Strict/)
        expect(cookie).toMatch(/; Secure/)
        expect(cookie).toMatch(/; Path=\//)
        expect(cookie).not.toMatch(/domain=/i)
      }
      const tokens = cookies.map((cookie) => cookie.split(/[=;]/)[1] as string)
      const { 'set-cookie': _, ...headers } = secure.headers
      for (const token of tokens) expect(JSON.stringify([headers, secure.text])).not.toContain(token)
      expect(secure.body).not.toHaveProperty('access_token')
      expect(secure.body).not.toHaveProperty('refresh_token')
      const refreshed = await api.call(
        'POST',
        '/api/refresh',
        {},
        {
          cookie: jarOf(secure.headers),
          host: 'app.example.com',
          origin: APP,
          'sec-fetch-site': 'same-origin',
        },
      )
      expect([
        refreshed.status,
        Object.keys(refreshed.body).filter((name) => /access_token|refresh_token/.test(name)),
      ]).toEqual([200, []])
      expect(cookiesOf(refreshed.headers)).toHaveLength(2)
      const me = await api.call('GET', '/api/me', undefined, {
        cookie: jarOf(refreshed.headers),
        host: 'app.example.com',
      })
      for (const token of cookiesOf(refreshed.headers).map((cookie) => cookie.split(/[=;]/)[1] as string))
        expect(me.text).not.toContain(token)
      // on loopback there may be no TLS, and a cookie for it alone would never come back
      const local = await api.call(
        'POST',
        '/api/login',
        { username, password, cookies: true },
        { host: 'localhost:4100' },
      )
      for (const cookie of cookiesOf(local.headers)) {
        expect(cookie).toMatch(/^threadbase_.*HttpOnly.*SameSite=Strict/)
        expect(cookie).not.toMatch(/Secure/)
      }
    })

    test('a cookie that a neighbour of the domain could have set', async () => {
      const { accessToken, refreshToken } = (await newAccount(api.opened.tb)).tokens
      const host = 'app.example.com'
      const cookie = `threadbase_access=${accessToken}; threadbase_refresh=${refreshToken}`
      expect((await api.call('GET', '/api/me', undefined, { cookie, host })).status).toBe(401)
      expect((await api.call('POST', '/api/refresh', {}, { cookie, host })).status).toBe(401)
      expect((await api.call('GET', '/api/me', undefined, { cookie, host: 'localhost:4100' })).status).toBe(
        200,
      )
    })
  },
  { auth: ACCOUNTS },
)

describeApi(
  'CORS',
  (api) => {
    test('a list that lets everybody in stops the start', () => {
      for (const value of ['*', 'null', 'https://*.example.com', `${APP},*`, 'app.example.com'])
        expect(() => parseConfig({ CORS_ORIGINS: value }), value).toThrow(/CORS_ORIGINS/)
    })

    test('a listed origin may call with credentials, any other gets no header', async () => {
      const account = await newAccount(api.opened.tb)
      const from = (origin: string) =>
        api.call('GET', '/api/threads', undefined, { ...account.headers, origin })
      const listed = await from(APP)
      expect(listed.headers).toMatchObject({
        'access-control-allow-origin': APP,
        'access-control-allow-credentials': 'true',
      })
      for (const origin of [
        EVIL,
        'null',
        `${APP}.evil.example`,
        `${APP}:444`,
        'https://app.example.com@evil.example',
        '*',
        '',
      ]) {
        const { headers } = await from(origin)
        expect(corsOf(headers), origin).toEqual([])
      }
    })
  },
  { auth: ACCOUNTS, corsOrigins: [APP] },
)
