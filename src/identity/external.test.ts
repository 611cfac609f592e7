import { type CryptoKey, exportSPKI, importJWK, SignJWT, UnsecuredJWT } from 'jose'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest'
import { type JwksServer, newProviderKey, type ProviderKey, startJwksServer } from '../../test/jwks-server.ts'
import { createExternalVerifier, type ExternalSettings, type ExternalVerifier } from './external.ts'

const SKEW_S = 30
const AUDIENCE = 'https://api.example.com'
const invalid = { code: 'unauthorized', details: { reason: 'invalid' } }
const expired = { code: 'unauthorized', details: { reason: 'expired' } }
const unavailable = { code: 'unavailable' }

const nowS = () => Math.floor(Date.now() / 1_000)
const forward = (s: number) => void vi.useFakeTimers({ toFake: ['Date'], now: Date.now() + s * 1_000 })

describe('tokens of an external provider', () => {
  let server: JwksServer
  let first: ProviderKey
  let second: ProviderKey
  let elliptic: ProviderKey
  let verify: ExternalVerifier
  beforeAll(async () => {
    server = await startJwksServer()
    ;[first, second, elliptic] = await Promise.all([
      newProviderKey('first'),
      newProviderKey('second'),
      newProviderKey('elliptic', 'ES256'),
    ])
  })
  afterAll(() => server?.close())
  beforeEach(() => {
    server.answer([first, elliptic])
    verify = open()
  })
  afterEach(() => void vi.useRealTimers())

  const open = (settings: Partial<ExternalSettings> = {}) =>
    createExternalVerifier({
      jwksUrl: server.url,
      issuer: server.issuer,
      audience: [AUDIENCE],
      algorithms: ['RS256', 'ES256'],
      clockSkewS: SKEW_S,
      ...settings,
    })
  const claims = (more: Record<string, unknown> = {}) => ({
    sub: 'user_1',
    iss: server.issuer,
    aud: AUDIENCE,
    iat: nowS(),
    exp: nowS() + 300,
    ...more,
  })

  test('say who the user is, whichever key and algorithm of the list signed them', async () => {
    const exp = nowS() + 300
    for (const key of [first, elliptic])
      expect(await verify(await key.sign(claims({ exp, name: 'Anna' })))).toEqual({
        userId: 'user_1',
        email: null,
        name: 'Anna',
        expiresAtMs: (exp + SKEW_S) * 1_000,
      })
    expect(server.requests()).toBe(1)
  })

  test('give an address only when the provider has proven it', async () => {
    const email = async (more: object) =>
      (await verify(await first.sign(claims({ email: 'a@b.de', ...more })))).email
    expect(await email({ email_verified: true })).toBe('a@b.de')
    for (const email_verified of [undefined, false, 'true', 1, null])
      expect(await email({ email_verified })).toBeNull()
  })

  test.each([
    ['too long', 'x'.repeat(256)],
    ['with a NUL', 'a\0b'],
    ['with half a pair', '\ud800'],
    ['of another type', { first: 'Anna' }],
  ])('with a name that is %s have none', async (_, name) => {
    expect(await verify(await first.sign(claims({ name })))).toMatchObject({ userId: 'user_1', name: null })
  })

  test.each([
    ['another issuer', { iss: 'https://evil.example' }],
    ['the issuer with a slash more', { iss: undefined }],
    ['another audience', { aud: 'https://other.example' }],
    ['no audience', { aud: undefined }],
    ['an empty list of audiences', { aud: [] }],
    ['no subject', { sub: undefined }],
    ['an empty subject', { sub: '' }],
    ['a subject too long', { sub: 'x'.repeat(256) }],
    ['a NUL in the subject', { sub: 'a\0b' }],
    ['half a pair in the subject', { sub: '\udc00' }],
    ['a number for a subject', { sub: 7 }],
    ['a list for a subject', { sub: ['user_1'] }],
    ['no end', { exp: undefined }],
    ['a text for an end', { exp: '9999999999' }],
  ])('with %s are refused', async (what, wrong) => {
    const more = what.includes('slash') ? { iss: `${server.issuer}/` } : wrong
    await expect(verify(await first.sign(claims(more)))).rejects.toMatchObject(invalid)
  })

  test('are for one of the audiences that are accepted, or for anybody when none is named', async () => {
    const either = open({ audience: ['a', 'b'] })
    for (const aud of ['a', 'b', ['x', 'b']]) await either(await first.sign(claims({ aud })))
    for (const aud of ['c', ['c', 'd'], undefined])
      await expect(either(await first.sign(claims({ aud })))).rejects.toMatchObject(invalid)
    for (const aud of ['c', undefined]) await open({ audience: undefined })(await first.sign(claims({ aud })))
  })

  test('may be off by the clock skew on either side, and no more', async () => {
    for (const near of [{ exp: nowS() - SKEW_S + 5 }, { nbf: nowS() + SKEW_S - 5 }])
      await verify(await first.sign(claims(near)))
    await expect(verify(await first.sign(claims({ exp: nowS() - SKEW_S - 5 })))).rejects.toMatchObject(
      expired,
    )
    await expect(verify(await first.sign(claims({ nbf: nowS() + SKEW_S + 5 })))).rejects.toMatchObject(
      invalid,
    )
  })

  describe('of another algorithm', () => {
    test('are refused, though the key is good', async () => {
      const only = open({ algorithms: ['RS256'] })
      await expect(only(await elliptic.sign(claims()))).rejects.toMatchObject(invalid)
      const { alg: _, ...jwk } = first.jwk
      server.answer([{ ...first, jwk }])
      const weaker = open({ algorithms: ['PS256'] })
      await expect(weaker(await first.sign(claims()))).rejects.toMatchObject(invalid)
    })

    test('are refused that have none', async () => {
      const token = new UnsecuredJWT(claims()).encode()
      const [, body] = token.split('.')
      const header = (alg: unknown) =>
        Buffer.from(JSON.stringify({ alg, kid: 'first' })).toString('base64url')
      for (const alg of ['none', 'None', 'NONE', '', null])
        for (const forged of [`${header(alg)}.${body}.`, `${header(alg)}.${body}.AAAA`])
          await expect(verify(forged)).rejects.toMatchObject(invalid)
      await expect(verify(token)).rejects.toMatchObject(invalid)
    })

    test('are refused that take the public key for a shared secret', async () => {
      const publicKey = await importJWK(first.jwk, 'RS256', { extractable: true })
      const secrets = [
        await exportSPKI(publicKey as CryptoKey),
        JSON.stringify(first.jwk),
        Buffer.from(String(first.jwk.n), 'base64url'),
      ]
      for (const secret of secrets) {
        const forged = await new SignJWT(claims())
          .setProtectedHeader({ alg: 'HS256', kid: 'first' })
          .sign(Buffer.from(secret))
        await expect(verify(forged)).rejects.toMatchObject(invalid)
      }
    })

    test('are refused that bring their own key', async () => {
      const evil = await newProviderKey('first')
      const header = { jwk: evil.jwk as never, jku: 'http://127.0.0.1:1/', x5u: 'http://127.0.0.1:1/' }
      await expect(verify(await evil.sign(claims(), header))).rejects.toMatchObject(invalid)
    })
  })

  test.each(['', 'x', 'a.b.c', '..', 'tb_key', `${'x'.repeat(5_000)}.y.z`, '\0.\0.\0'])(
    'what is no token (%j) is refused',
    async (token) => {
      await expect(verify(token)).rejects.toMatchObject(invalid)
    },
  )

  describe('when the provider changes its keys', () => {
    test('a new one is fetched once the last fetch is some time ago', async () => {
      await verify(await first.sign(claims()))
      server.answer([first, second])
      forward(31)
      const before = server.requests()
      expect(await verify(await second.sign(claims()))).toMatchObject({ userId: 'user_1' })
      await verify(await second.sign(claims()))
      expect(server.requests() - before).toBe(1)
    })

    test('one that is withdrawn stops working when the keys are fetched again', async () => {
      const token = await first.sign(claims({ exp: nowS() + 3_600 }))
      await verify(token)
      server.answer([second])
      forward(9 * 60)
      await verify(token)
      forward(2 * 60)
      await expect(verify(token)).rejects.toMatchObject(invalid)
    })

    test('a flood of tokens with invented keys is no flood of fetches', async () => {
      await verify(await first.sign(claims()))
      const before = server.requests()
      const forged = await Promise.all(
        Array.from({ length: 50 }, (_, i) => second.sign(claims(), { kid: `invented-${i}` })),
      )
      for (const token of forged) await expect(verify(token)).rejects.toMatchObject(invalid)
      expect(server.requests() - before).toBe(0)
      forward(31)
      await Promise.all(forged.map((token) => expect(verify(token)).rejects.toMatchObject(invalid)))
      expect(server.requests() - before).toBeLessThanOrEqual(2)
    })
  })

  describe('when the keys cannot be had', () => {
    const failures: [name: string, begin: () => void][] = [
      ['an error', () => server.answer({ status: 500, text: 'broken' })],
      ['no such page', () => server.answer({ status: 404, text: '{"keys":[]}' })],
      [
        'a redirection',
        () => server.answer({ status: 302, text: '', headers: { location: `${server.url}?` } }),
      ],
      ['a page', () => server.answer({ text: '<html>sign in</html>' })],
      ['half an answer', () => server.answer({ text: '{"keys":[' })],
      ['another object', () => server.answer({ text: '{"error":"x"}' })],
      ['keys that are none', () => server.answer({ text: '{"keys":[1,null]}' })],
      ['a list', () => server.answer({ text: '[]' })],
      ['far too much', () => server.answer({ text: `{"keys":[],"x":"${'x'.repeat(3_000_000)}"}` })],
    ]

    test.each(failures)('(%s) nobody gets in, and none is told that the token is wrong', async (_, begin) => {
      begin()
      const token = await first.sign(claims())
      await expect(verify(token)).rejects.toMatchObject(unavailable)
      server.answer([first])
      forward(31)
      expect(await verify(token)).toMatchObject({ userId: 'user_1' })
    })

    test.each(failures)('(%s) keys that are known go on working, new ones have to wait', async (_, begin) => {
      const token = await first.sign(claims())
      await verify(token)
      begin()
      forward(31)
      await expect(verify(await second.sign(claims()))).rejects.toMatchObject(unavailable)
      await verify(token)
      server.answer([first, second])
      forward(31)
      await verify(await second.sign(claims()))
    })

    test('an outage of the provider’s that lasts longer than its keys are kept does not lock everybody out', async () => {
      await verify(await first.sign(claims()))
      server.answer({ status: 503, text: '' })
      forward(11 * 60)
      await verify(await first.sign(claims()))
      await expect(verify(await second.sign(claims()))).rejects.toMatchObject(unavailable)
      forward(60 * 60)
      await expect(verify(await first.sign(claims()))).rejects.toMatchObject(unavailable)
      server.answer([first])
      forward(31)
      await verify(await first.sign(claims()))
    })

    test('a flood of requests is no flood of fetches', async () => {
      server.answer({ status: 500, text: '' })
      const before = server.requests()
      const token = await first.sign(claims())
      for (let i = 0; i < 20; i++) await expect(verify(token)).rejects.toMatchObject(unavailable)
      expect(server.requests() - before).toBeLessThanOrEqual(2)
    })

    test('a server that is not there, or does not answer, says so within seconds', async () => {
      const nowhere = open({ jwksUrl: 'http://127.0.0.1:1/jwks' })
      const token = await first.sign(claims())
      await expect(nowhere(token)).rejects.toMatchObject(unavailable)
      server.hang()
      await expect(verify(token)).rejects.toMatchObject(unavailable)
    })

    test.each([
      ['of an unknown kind', { kty: 'XYZ', kid: 'first' }],
      ['that is damaged', { kty: 'RSA', kid: 'first', n: '!!', e: 'AQAB' }],
      ['that is empty', { kty: 'RSA', kid: 'first', n: '', e: '' }],
      ['that lacks a part', { kty: 'RSA', kid: 'first' }],
      ['that is too short to be safe', { kty: 'RSA', kid: 'first', n: 'u1W5', e: 'AQAB' }],
      ['that is a shared secret', { kty: 'oct', kid: 'first', k: 'AAAA' }],
    ])('a key %s signs nobody in, and spoils none of the others', async (_, jwk) => {
      server.answer([{ ...first, jwk }, elliptic])
      await expect(verify(await first.sign(claims()))).rejects.toMatchObject({
        code: expect.stringMatching(/^(unauthorized|unavailable)$/),
      })
      await verify(await elliptic.sign(claims()))
    })
  })
})
