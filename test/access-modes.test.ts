import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { exportJWK, generateKeyPair, SignJWT } from 'jose'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { bearer, type Headers, newBytes, newRows, newSession, PROVIDER } from './accounts.ts'
import { councilAt, startCouncilServer } from './council.ts'
import { type Engine, engines, TEST_AUTH } from './harness.ts'
import { type Api, describeApi, openApi, refusal } from './http.ts'
import { dial } from './raw-http.ts'
import { callRoute, protectedNames, requestFor, routeNames, routeOf, type Target } from './routes.ts'

const models = await startCouncilServer()
afterAll(() => models.close())

const ISSUER = 'https://issuer.example.com/'
const AUDIENCE = 'threadbase'
const SECRET = 'what-the-proxy-proves-itself-with-in-tests'

/** Rows of a user whom somebody else vouches for, and who has no password here. */
async function targetOf({ opened: { tb } }: Api, id: string, provider: 'jwt' | 'proxy'): Promise<Target> {
  await tb.identity.users.ensure({ id, provider })
  const nothing = { id, username: id, password: 'none', tokens: { refreshToken: 'none' } }
  return {
    account: nothing as unknown as Target['account'],
    rows: await newRows(tb, id, 'secret-of-the-target'),
  }
}

async function expectRefused(api: Api, target: Target, headers: Headers, what: string): Promise<void> {
  for (const name of protectedNames) {
    const answer = await callRoute(api, name, target, headers)
    expect(refusal(answer), `${name} with ${what}`).toMatchObject({ status: 401, code: 'unauthorized' })
    expect(answer.headers['www-authenticate'], name).toMatch(/^Bearer/)
  }
}

/** What the routes answer a user of their own: what they do in mode accounts, but that there is no password to change. */
async function expectOwn(api: Api, make: () => Promise<{ target: Target; headers: Headers }>): Promise<void> {
  for (const name of protectedNames) {
    const { access, ok } = routeOf(name)
    const { target, headers } = await make()
    const expected =
      access === 'admin' || access === 'metrics' || access === 'ingest'
        ? 403
        : name === 'POST /api/me/password'
          ? 404
          : ok
    const answer = await callRoute(api, name, target, headers)
    expect(answer.status, `${name} ${answer.text}`).toBe(expected)
  }
}

async function expectNoSignIn(api: Api, target: Target): Promise<void> {
  for (const name of routeNames.filter((name) => /login|refresh|logout|register/.test(name))) {
    const answer = await callRoute(api, name, target)
    expect(answer.status, name).toBe(404)
    expect(answer.headers['set-cookie']).toBeUndefined()
  }
}

async function expectStrangerKeptOut(api: Api, target: Target, headers: Headers): Promise<void> {
  // a thread of the stranger's own with the target's id would be found by what comes after
  const apart = new Set(['POST /api/threads', 'POST /api/sessions', 'POST /api/me/password'])
  for (const name of protectedNames.filter((name) => !apart.has(name))) {
    const answer = await callRoute(api, name, target, headers)
    const { access, stranger: told } = routeOf(name)
    const stranger = access === 'ingest' ? 403 : told
    expect([stranger, 200, 201], `${name} ${answer.text}`).toContain(answer.status)
    if (stranger >= 400) expect(answer.status, name).toBe(stranger)
    expect(answer.text.replaceAll(target.rows.title, ''), name).not.toContain('secret-of-the-target')
  }
}

for (const engine of engines) {
  describe.skipIf(!engine.available)(`mode jwt on ${engine.name}`, () => {
    let api: Api
    let jwks: Server
    let sign: (
      claims: object,
      over?: { alg?: string; kid?: string; key?: Parameters<SignJWT['sign']>[0] },
    ) => Promise<string>
    let target: Target
    beforeAll(async () => {
      const { publicKey, privateKey } = await generateKeyPair('ES256')
      const keys = [{ ...(await exportJWK(publicKey)), kid: 'k1', alg: 'ES256', use: 'sig' }]
      jwks = createServer((_request, response) => response.end(JSON.stringify({ keys })))
      await new Promise<void>((resolve) => void jwks.listen(0, '127.0.0.1', resolve))
      sign = (claims, { alg = 'ES256', kid = 'k1', key = privateKey } = {}) => {
        const now = Math.floor(Date.now() / 1_000)
        const usual = { iss: ISSUER, aud: AUDIENCE, sub: 'auth0|anna', iat: now, exp: now + 60 }
        return new SignJWT({ ...usual, ...claims }).setProtectedHeader({ alg, kid }).sign(key)
      }
      api = await openJwtApi(engine, jwks)
      target = await targetOf(api, 'auth0|anna', 'jwt')
    })
    afterAll(async () => {
      await api?.app.close()
      await api?.opened.close()
      jwks?.close()
    })

    test('a token of the provider opens what is its user’s, and nobody else’s', async () => {
      let n = 0
      await expectOwn(api, async () => {
        const sub = `auth0|${n++}`
        return { target: await targetOf(api, sub, 'jwt'), headers: bearer(await sign({ sub })) }
      })
      // the beginning of the target's id
      await expectStrangerKeptOut(api, target, bearer(await sign({ sub: 'auth0|ann' })))
      await expectNoSignIn(api, target)
    })

    test('any other token is refused', async () => {
      const now = Math.floor(Date.now() / 1_000)
      const foreign = await generateKeyPair('ES256')
      const good = await sign({})
      const [, payload] = good.split('.')
      const none = Buffer.from('{"alg":"none","kid":"k1"}').toString('base64url')
      const shared = new TextEncoder().encode(String(TEST_AUTH.secrets?.[0]))
      const tokens: Record<string, Headers> = {
        nothing: {},
        garbage: bearer('a.b.c'),
        expired: bearer(await sign({ exp: now - 120 })),
        'not good yet': bearer(await sign({ nbf: now + 120 })),
        'without an end': bearer(await sign({ exp: undefined })),
        'without a user': bearer(await sign({ sub: undefined })),
        'with an empty user': bearer(await sign({ sub: '' })),
        'of another issuer': bearer(await sign({ iss: 'https://evil.example/' })),
        'for another audience': bearer(await sign({ aud: 'another' })),
        'signed by another key': bearer(await sign({}, { key: foreign.privateKey })),
        'of an unknown key': bearer(await sign({}, { kid: 'k2' })),
        'with alg none': bearer(`${none}.${payload}.`),
        'signed with our own secret': bearer(await sign({}, { alg: 'HS256', key: shared })),
        'in a cookie': { cookie: `threadbase_access=${good}` },
        'as an API key': { 'x-api-key': good },
        'named by a header': { 'x-user-id': 'auth0|anna', 'x-proxy-secret': SECRET },
      }
      for (const [what, headers] of Object.entries(tokens)) await expectRefused(api, target, headers, what)
    })
  })
}

function openJwtApi(engine: Engine, jwks: Server): Promise<Api> {
  const { port } = jwks.address() as AddressInfo
  const external = {
    jwksUrl: `http://127.0.0.1:${port}/`,
    issuer: ISSUER,
    audience: [AUDIENCE],
    algorithms: ['ES256'],
    clockSkewS: 5,
  }
  return openApi(engine, { auth: { ...TEST_AUTH, mode: 'jwt', external }, council: councilAt(models) })
}

describeApi(
  'mode proxy',
  (api) => {
    const proxied = (user: string): Headers => ({ 'x-proxy-secret': SECRET, 'x-user-id': user })
    let target: Target
    beforeAll(async () => {
      target = await targetOf(api, 'anna', 'proxy')
    })

    test('the user whom the proxy names reaches what is theirs, and nobody else’s', async () => {
      let n = 0
      await expectOwn(api, async () => {
        const id = `user-${n++}`
        return { target: await targetOf(api, id, 'proxy'), headers: proxied(id) }
      })
      await expectStrangerKeptOut(api, target, proxied('ann'))
      await expectNoSignIn(api, target)
    })

    test('without the secret there is no user', async () => {
      const cases: Record<string, Headers> = {
        nothing: {},
        'a user alone': { 'x-user-id': 'anna' },
        'a wrong secret': { 'x-user-id': 'anna', 'x-proxy-secret': `${SECRET}x` },
        'an empty secret': { 'x-user-id': 'anna', 'x-proxy-secret': '' },
        'the secret twice': { 'x-user-id': 'anna', 'x-proxy-secret': `${SECRET}, ${SECRET}` },
        'the secret without a user': { 'x-proxy-secret': SECRET },
        'two users in one': { 'x-proxy-secret': SECRET, 'x-user-id': 'anna, ben' },
        'an empty user': { 'x-proxy-secret': SECRET, 'x-user-id': '' },
        'the secret as a token': { ...bearer(SECRET), 'x-user-id': 'anna' },
        'a key that nobody has': { ...proxied('anna'), 'x-api-key': `tb_${'A'.repeat(43)}` },
      }
      for (const [what, headers] of Object.entries(cases)) await expectRefused(api, target, headers, what)
    })

    test('headers that come twice are what a client sent along', async () => {
      await api.app.listen({ host: '127.0.0.1', port: 0 })
      const { port } = api.app.server.address() as AddressInfo
      const statusOf = async (...headers: string[]) => {
        const client = dial(port)
        const lines = ['host: localhost', 'connection: close', ...headers].join('\r\n')
        client.socket.write(`GET /api/me HTTP/1.1\r\n${lines}\r\n\r\n`)
        await client.ended
        return Number(client.text().split(' ')[1])
      }
      const [secret, anna] = [`x-proxy-secret: ${SECRET}`, 'x-user-id: anna']
      expect(await statusOf(secret, anna)).toBe(200)
      expect(await statusOf(secret, anna, 'X-User-Id: ben')).toBe(401)
      expect(await statusOf(secret, anna, anna)).toBe(401)
      expect(await statusOf(secret, secret, anna)).toBe(401)
      expect(await statusOf('x-proxy-secret: wrong', secret, anna)).toBe(401)
      expect(await statusOf(secret, 'x_user_id: anna')).toBe(401)
    })

    test('a page of another site changes nothing, though the proxy lets its request through', async () => {
      const change = (headers: Headers) =>
        api.call('POST', '/api/threads', undefined, { ...proxied('anna'), host: 'upstream:4100', ...headers })
      for (const headers of [
        { origin: 'https://evil.example' },
        { origin: 'null' },
        { origin: 'https://evil.example', 'sec-fetch-site': 'cross-site' },
        { 'sec-fetch-site': 'same-site' },
      ] as Headers[])
        expect(refusal(await change(headers)), JSON.stringify(headers)).toMatchObject({ status: 403 })
      // the proxy may change the host: the browser's word counts
      expect(
        (await change({ origin: 'https://app.example.com', 'sec-fetch-site': 'same-origin' })).status,
      ).toBe(201)
      expect((await change({})).status).toBe(201)
    })

    test('what the proxy itself was shown is none of our business', async () => {
      for (const authorization of ['Basic YW5uYTp4', 'Bearer something', 'Negotiate x'])
        expect(
          (await api.call('GET', '/api/me', undefined, { ...proxied('anna'), authorization })).body.user_id,
        ).toBe('anna')
    })
  },
  { auth: { ...TEST_AUTH, mode: 'proxy', proxySecret: SECRET }, council: councilAt(models) },
)

describeApi(
  'mode single-user',
  (api) => {
    test('every route is for user local, and no header makes another of it', async () => {
      const odd = {
        'x-user-id': 'root',
        'x-api-key': 'tb_x',
        authorization: 'Bearer x',
        cookie: 'threadbase_access=x',
      }
      // after its own erasure the user stores nothing any more
      const others = protectedNames.filter(
        (name) => !/api-keys|\/api\/me|^DELETE \/api\/users\/me$/.test(name),
      )
      for (const name of others) {
        const { access, ok } = routeOf(name)
        const target = await localTarget(api)
        const answer = await callRoute(api, name, target, odd)
        expect(answer.status, name).toBe(access === 'admin' ? 403 : ok)
      }
      expect((await api.call('GET', '/api/me', undefined, odd)).body.user_id).toBe('local')
      await expectNoSignIn(api, await localTarget(api))
    })

    test('no page of another origin, and no other name of this machine', async () => {
      const target = await localTarget(api)
      for (const name of protectedNames) {
        const { method, url, body } = requestFor(name, target)
        for (const headers of [
          { origin: 'https://evil.example' },
          { origin: 'null' },
          { host: 'evil.example' },
        ] as Headers[])
          expect((await api.call(method, url, body, headers)).status, name).toBe(403)
      }
    })
  },
  { council: councilAt(models) },
)

/** Rows of user local, who has no keys and no account. */
async function localTarget({ opened: { tb } }: Api): Promise<Target> {
  const scope = { userId: 'local' }
  const { id: thread } = await tb.threads.create(scope, { id: crypto.randomUUID(), title: 'mine' })
  const [message] = await tb.messages.append(scope, thread, [{ role: 'user', content: 'x' }])
  const account = { id: 'local', username: 'local', password: 'none', tokens: { refreshToken: 'none' } }
  const { id: conversation } = await tb.conversations.createConversation(scope)
  const bytes = await newBytes(tb, 'local', thread, 'mine')
  const by = { userId: 'local', via: 'single-user' } as const
  await tb.credentials.apiKeys.put(scope, by, PROVIDER, { apiKey: 'mine' })
  const named = { name: `n ${crypto.randomUUID()}`, value: 'mine' }
  const { id: variable } = await tb.variables.create(scope, by, named)
  const session = await newSession(tb, 'local', 'mine', 'mine')
  const ids = { thread, message: String(message?.id), key: crypto.randomUUID(), variable, conversation }
  const rows = { ...ids, ...session, ...bytes, title: 'mine' }
  return { account: account as unknown as Target['account'], rows }
}
