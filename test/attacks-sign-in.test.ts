import { expect, test } from 'vitest'
import { createLimiter } from '../src/cache/limiter.ts'
import { createPasswords } from '../src/identity/passwords.ts'
import { createSignIn } from '../src/identity/sign-in.ts'
import { ACCOUNTS, bearer, newAccount } from './accounts.ts'
import { type Answer, describeApi, refusal } from './http.ts'

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
