import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Access } from '../src/core/http-shapes.ts'
import {
  ACCOUNTS,
  alteredTokenOf,
  bearer,
  everythingOf,
  expiredKeyOf,
  expiredTokenOf,
  forgedTokenOf,
  type Headers,
  newAccount,
  newRows,
  revokedKeyOf,
  unsignedTokenOf,
} from './accounts.ts'
import { councilAt, startCouncilServer } from './council.ts'
import { type Answer, type Api, describeApi, type Json, refusal } from './http.ts'
import {
  callRoute,
  newTarget,
  operationsOf,
  protectedNames,
  requestFor,
  routeNames,
  routeOf,
  servedRoutes,
  type Target,
} from './routes.ts'

/** Pages that show the document; they are not in it. */
const PAGES = [
  'GET /docs',
  'GET /docs/',
  'GET /docs/*',
  'GET /docs/json',
  'GET /docs/static/index.html',
  'GET /docs/static/swagger-initializer.js',
  'GET /docs/yaml',
  'GET /openapi.json',
]
const models = await startCouncilServer()
afterAll(() => models.close())

const MARKER = 'of-the-target-alone'
/** What makes a thing of a name that is given, or finds the caller's own. */
const MADE_ONCE = new Set([
  'POST /api/threads',
  'POST /api/sessions',
  'PUT /api/users/me/api-keys/{provider}',
])

const isOfSuperusers = (access: Access) => access === 'admin' || access === 'metrics'

/** The scope that an API key needs; undefined: no scope is enough for a user who is no superuser. */
function scopeFor(access: Access, isSuperuser: boolean): string | undefined {
  if (isOfSuperusers(access)) return isSuperuser ? 'admin' : undefined
  return access === 'account' ? 'admin' : access
}

function expectUnauthorized(answer: Answer, what: string): void {
  expect(refusal(answer), what).toMatchObject({ status: 401, code: 'unauthorized' })
  expect(answer.headers['www-authenticate'], what).toMatch(/^Bearer realm=/)
  expect(answer.headers['set-cookie'], what).toBeUndefined()
}

describeApi(
  'access to every route',
  (api) => {
    let document: Map<string, Json>
    let target: Target
    let before: unknown
    const stored = () => everythingOf(api.opened, target.account.id)
    beforeAll(async () => {
      document = operationsOf((await api.call('GET', '/openapi.json')).body)
      target = await newTarget(api, MARKER)
      before = await stored()
    })

    test('the table has every route of the document, with its access', () => {
      expect([...document.keys()].sort()).toEqual([...routeNames].sort())
      for (const [name, operation] of document) {
        const { access } = routeOf(name)
        expect(operation['x-access'], name).toBe(access)
        const schemes = (operation.security as object[]).flatMap((scheme) => Object.keys(scheme))
        expect(schemes, name).toEqual(access === 'public' ? [] : ['bearer', 'apiKey', 'cookie'])
      }
    })

    test('what the server answers and the document does not have are the pages that show it', () => {
      const served = servedRoutes(api.app.printRoutes({ commonPrefix: false }))
      expect(served.length).toBeGreaterThan(routeNames.length)
      expect(served.filter((name) => !document.has(name)).sort()).toEqual(PAGES)
      expect([...document.keys()].filter((name) => !served.includes(name))).toEqual([])
    })

    test.each(routeNames)('%s answers the right caller', async (name) => {
      const { access, ok } = routeOf(name)
      const mine = await newTarget(api)
      const caller = isOfSuperusers(access)
        ? await newAccount(api.opened.tb, { isSuperuser: true })
        : mine.account
      const headers = access === 'ingest' ? bearer(await caller.key(['ingest'])) : caller.headers
      const answer = await callRoute(api, name, mine, access === 'public' ? {} : headers)
      expect(answer.status, answer.text).toBe(ok)
    })

    test('what is for keys with the scope ingest is for no session but that of a superuser', async () => {
      const [name = ''] = routeNames.filter((one) => routeOf(one).access === 'ingest')
      const mine = await newTarget(api)
      expect((await callRoute(api, name, mine, mine.account.headers)).status).toBe(403)
      const { headers } = await newAccount(api.opened.tb, { isSuperuser: true })
      // it is not the superuser's thread
      expect((await callRoute(api, name, mine, headers)).status).toBe(404)
    })

    test('keys with the scope ingest are made by superusers', async () => {
      const make = async (isSuperuser: boolean) => {
        const { headers } = await newAccount(api.opened.tb, { isSuperuser })
        return (await api.call('POST', '/api/api-keys', { name: 'k', scopes: ['ingest'] }, headers)).status
      }
      expect([await make(false), await make(true)]).toEqual([403, 201])
    })

    describe('with a credential that is none', () => {
      const refused = new Map<string, { headers?: Headers; query?: string }>()
      beforeAll(async () => {
        const made = await brokenCredentials(api)
        for (const [name, credential] of Object.entries(made)) refused.set(name, credential)
        before = await stored()
      })

      test.each(protectedNames)('%s is refused', async (name) => {
        expect(refused.size).toBeGreaterThan(20)
        for (const [what, { headers, query = '' }] of refused) {
          const { method, url, body } = requestFor(name, target)
          const answer = await api.call(method, url + (url.includes('?') ? '&' : '?') + query, body, headers)
          expectUnauthorized(answer, `${name} with ${what}`)
        }
        expect(await stored()).toEqual(before)
      })

      test('HEAD is refused as GET is', async () => {
        for (const name of protectedNames.filter((name) => name.startsWith('GET'))) {
          const { url } = requestFor(name, target)
          for (const headers of [{}, bearer('x')]) {
            const { status } = await api.call('HEAD', url, undefined, headers)
            // some have no HEAD
            expect([401, 404], name).toContain(status)
          }
        }
      })
    })

    test.each(protectedNames)('%s tells another user nothing of the target', async (name) => {
      const { stranger } = routeOf(name)
      const { tb } = api.opened
      const other = await newAccount(tb)
      const credentials = {
        session: other.headers,
        key: bearer(await other.key(['read', 'write', 'admin', 'ingest'])),
      }
      for (const [what, headers] of Object.entries(credentials)) {
        const answer = await callRoute(api, name, target, headers)
        // the second time it is the stranger's own
        const ofKeys = routeOf(name).access === 'ingest' && what === 'session'
        const expected = ofKeys ? 403 : MADE_ONCE.has(name) && what === 'key' ? 200 : stranger
        expect(answer.status, `${what}: ${answer.text}`).toBe(expected)
        expect(JSON.stringify([answer.headers, answer.text])).not.toContain(
          // what the stranger sent may come back
          name === 'POST /api/threads' || name === 'POST /api/sessions' ? `content ${MARKER}` : MARKER,
        )
        const others = answer.body?.items?.filter(({ user_id: owner }: Json) => owner !== other.id)
        if (others !== undefined) expect(others, name).toEqual([])
        expect(await stored()).toEqual(before)
      }
    })

    describe.each([false, true])('an API key, of a superuser: %s', (isSuperuser) => {
      const SCOPES = ['read', 'write', 'admin', 'ingest', 'flow:some']
      const keys = new Map<string, string>()
      beforeAll(async () => {
        const user = await newAccount(api.opened.tb, { isSuperuser })
        for (const scope of SCOPES) keys.set(scope, await user.key([scope]))
      })

      test.each(protectedNames)('%s asks for its scope', async (name) => {
        const { access, ok } = routeOf(name)
        const needed = scopeFor(access, isSuperuser)
        for (const scope of SCOPES.filter((scope) => scope !== needed)) {
          const answer = await callRoute(api, name, target, { 'x-api-key': String(keys.get(scope)) })
          expect(refusal(answer), scope).toMatchObject({ status: 403, code: 'forbidden' })
        }
        if (needed === undefined) return
        const caller = await newAccount(api.opened.tb, { isSuperuser })
        const mine: Target = { account: caller, rows: await newRows(api.opened.tb, caller.id, 'mine') }
        const answer = await callRoute(api, name, mine, { 'x-api-key': await caller.key([needed]) })
        expect(answer.status, answer.text).toBe(ok)
      })
    })

    test('a superuser reads through the admin routes alone, and each such read is in the audit log', async () => {
      const chief = await newAccount(api.opened.tb, { isSuperuser: true })
      for (const name of protectedNames.filter(
        (name) => name.includes('{id}') && name.startsWith('GET /api/'),
      )) {
        const answer = await callRoute(api, name, target, chief.headers)
        expect(answer.status, name).toBe(name.includes('/admin/') ? routeOf(name).ok : 404)
      }
      const log = await api.call(
        'GET',
        `/api/admin/audit?actor_id=${chief.id}&action=data_read`,
        undefined,
        chief.headers,
      )
      const read = log.body.items.filter(({ user_id }: Json) => user_id === target.account.id)
      const { thread, message, key, artifact, file, conversation, session } = target.rows
      const withBytes = (path: string) => ['', '/head', '/download', '/content'].map((part) => path + part)
      const paths = read.map((entry: Json) => entry.target)
      expect(paths.sort()).toEqual(
        [
          `threads/${thread}`,
          `threads/${thread}/messages`,
          `threads/${thread}/messages/${message}`,
          `threads/${thread}/config`,
          `threads/${thread}/artifacts`,
          ...withBytes(`artifacts/${artifact}`),
          ...withBytes(`files/${file}`),
          `api-keys/${key}`,
          `conversations/${conversation}`,
          `conversations/${conversation}/export/json`,
          `sessions/${session}`,
          `sessions/${session}/analysis`,
          `sessions/${session}/analysis/versions`,
          `sessions/${session}/analysis/versions/1`,
        ].sort(),
      )
    })

    test('the audit log has the id of a conversation as it is', async () => {
      const chief = await newAccount(api.opened.tb, { isSuperuser: true })
      const user = await newAccount(api.opened.tb)
      const { id } = await api.opened.tb.conversations.createConversation({ userId: user.id }, 'My TRIP')
      const path = `/api/admin/users/${user.id}/conversations/${encodeURIComponent(id)}`
      expect((await api.call('GET', path, undefined, chief.headers)).status).toBe(200)
      const log = await api.call('GET', `/api/admin/audit?actor_id=${chief.id}`, undefined, chief.headers)
      expect(log.body.items.map((entry: Json) => entry.target)).toContain('conversations/My TRIP')
    })
  },
  { auth: ACCOUNTS, council: councilAt(models) },
)

/** Everything that is not, or not any more, a credential. */
async function brokenCredentials(api: Api): Promise<Record<string, { headers?: Headers; query?: string }>> {
  const { opened } = api
  const { tb } = opened
  const user = await newAccount(tb)
  const chief = await newAccount(tb, { isSuperuser: true })
  const good = await user.key(['read', 'write', 'admin', 'ingest'])
  const out = await newAccount(tb)
  await api.call('POST', '/api/logout', {}, out.headers)
  const gone = await newAccount(tb, { isSuperuser: true })
  const keyOfGone = await gone.key(['read', 'write', 'admin', 'ingest'])
  for (const headers of [gone.headers, bearer(keyOfGone)]) {
    const { status } = await api.call('GET', '/api/threads', undefined, headers)
    expect(status).toBe(200)
  }
  await gone.deactivate()
  const basic = Buffer.from(`${user.username}:${user.password}`).toString('base64')
  const { accessToken, refreshToken } = user.tokens
  const [head, payload] = accessToken.split('.')
  const as = (headers: Headers) => ({ headers })
  return {
    nothing: {},
    'an empty header': as({ authorization: '' }),
    'Bearer and nothing': as({ authorization: 'Bearer' }),
    'Bearer and a space': as({ authorization: 'Bearer ' }),
    Basic: as({ authorization: `Basic ${basic}` }),
    'a token without its scheme': as({ authorization: accessToken }),
    'a token under another scheme': as({ authorization: `Token ${accessToken}` }),
    'two tokens': as({ authorization: `Bearer ${accessToken}, Bearer ${accessToken}` }),
    garbage: as(bearer('garbage')),
    'three parts of garbage': as(bearer('a.b.c')),
    'a very long one': as(bearer('x'.repeat(12_000))),
    'a token without a signature': as(bearer(`${head}.${payload}.`)),
    'a token with alg none': as(bearer(unsignedTokenOf(user))),
    'a token signed with another secret': as(bearer(await forgedTokenOf(chief))),
    'a token with the name of a superuser': as(bearer(alteredTokenOf(user, chief.id))),
    'a refresh token': as(bearer(refreshToken)),
    'a refresh token in the cookie': as({ cookie: `threadbase_access=${refreshToken}` }),
    'a refresh token of its own cookie': as({ cookie: `threadbase_refresh=${refreshToken}` }),
    'a cookie of garbage': as({ cookie: 'threadbase_access=garbage' }),
    'a session id': as(bearer(user.tokens.sessionId)),
    'a user id': as({ 'x-user-id': chief.id }),
    'tb_ and garbage': as(bearer('tb_garbage')),
    'a key that nobody has': as(bearer(`tb_${'A'.repeat(43)}`)),
    'a key but its last character': as(bearer(good.slice(0, -1))),
    'a key and a character': as({ 'x-api-key': `${good}A` }),
    'two keys': as({ 'x-api-key': `${good}, ${good}` }),
    'an access token as a key': as({ 'x-api-key': accessToken }),
    'a key in a cookie': as({ cookie: `threadbase_access=${good}; x-api-key=${good}; api_key=${good}` }),
    'a key in the query': {
      query: `api_key=${good}&x-api-key=${good}&access_token=${accessToken}&token=${accessToken}&key=${good}`,
    },
    'an expired access token': as(bearer(await expiredTokenOf(chief))),
    'an expired access token in the cookie': as({
      cookie: `threadbase_access=${await expiredTokenOf(chief)}`,
    }),
    'an expired key': as(bearer(await expiredKeyOf(opened, user))),
    'a revoked key': as(bearer(await revokedKeyOf(api, user))),
    'a session that logged out': as(out.headers),
    "a deactivated superuser's session": as(gone.headers),
    "a deactivated superuser's key": as({ 'x-api-key': keyOfGone }),
  }
}
