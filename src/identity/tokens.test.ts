import { SignJWT, UnsecuredJWT } from 'jose'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { createTokenSigner } from './tokens.ts'

const SECRET = 'first-secret-first-secret-first-secret'
const OTHER = 'other-secret-other-secret-other-secret'
const SESSION = '0192f0c1-2f6b-7cc0-8d2e-5f0a6d2f4b11'

const signerOf = (...secrets: string[]) => createTokenSigner({ secrets, accessTtlS: 60, refreshTtlS: 600 })
const signer = signerOf(SECRET)
const invalid = { code: 'unauthorized', details: { reason: 'invalid' } }
const expired = { code: 'unauthorized', details: { reason: 'expired' } }

const decode = (part = '') => JSON.parse(Buffer.from(part, 'base64url').toString())
const encode = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url')
const headerOf = (token: string) => decode(token.split('.')[0])

/** A token of ours with other claims or another header, signed with our secret. */
function forge(like: string, header: object, claims: object, secret = SECRET): Promise<string> {
  const [head, body] = like.split('.').map((part, i) => (i < 2 ? decode(part) : undefined))
  return new SignJWT({ ...body, ...claims })
    .setProtectedHeader({ ...head, ...header })
    .sign(Buffer.from(secret))
}

describe('tokens', () => {
  let access: string
  let refresh: string
  beforeEach(async () => {
    access = await signer.signAccess('anna', SESSION)
    refresh = await signer.signRefresh({ userId: 'anna', sessionId: SESSION, generation: 7 })
  })
  afterEach(() => void vi.useRealTimers())

  test('say who, which session and until when', async () => {
    const now = Date.now()
    const { expiresAtMs, ...claims } = await signer.readAccess(access)
    expect(claims).toEqual({ userId: 'anna', sessionId: SESSION })
    expect(expiresAtMs - now).toBeGreaterThan(58_000)
    expect(expiresAtMs - now).toBeLessThanOrEqual(60_000)
    expect(await signer.readRefresh(refresh)).toEqual({ userId: 'anna', sessionId: SESSION, generation: 7 })
  })

  test('of one type never stand for the other', async () => {
    await expect(signer.readAccess(refresh)).rejects.toMatchObject(invalid)
    await expect(signer.readRefresh(access)).rejects.toMatchObject(invalid)
    const untyped = await forge(access, { typ: undefined }, {})
    const other = await forge(access, { typ: 'JWT' }, {})
    for (const token of [untyped, other])
      await expect(signer.readAccess(token)).rejects.toMatchObject(invalid)
  })

  test('expire', async () => {
    vi.useFakeTimers({ toFake: ['Date'], now: Date.now() + 59_000 })
    await signer.readAccess(access)
    vi.setSystemTime(Date.now() + 2_000)
    await expect(signer.readAccess(access)).rejects.toMatchObject(expired)
    await signer.readRefresh(refresh)
    vi.setSystemTime(Date.now() + 600_000)
    await expect(signer.readRefresh(refresh)).rejects.toMatchObject(expired)
  })

  test('of another secret are refused, also under the id of ours', async () => {
    const foreign = await signerOf(OTHER).signAccess('anna', SESSION)
    await expect(signer.readAccess(foreign)).rejects.toMatchObject(invalid)
    const disguised = await forge(access, {}, {}, OTHER)
    expect(headerOf(disguised)).toEqual(headerOf(access))
    await expect(signer.readAccess(disguised)).rejects.toMatchObject(invalid)
  })

  test('of an older secret in the list are good; new ones are of the first', async () => {
    const rotated = signerOf(OTHER, SECRET)
    expect(await rotated.readAccess(access)).toMatchObject({ userId: 'anna' })
    const renewed = await rotated.signAccess('anna', SESSION)
    expect(await signerOf(OTHER).readAccess(renewed)).toMatchObject({ userId: 'anna' })
    await expect(signer.readAccess(renewed)).rejects.toMatchObject(invalid)
    // the secret is taken off the list
    await expect(signerOf(OTHER).readAccess(access)).rejects.toMatchObject(invalid)
  })

  test('are refused when any character of them is another', async () => {
    const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_'
    const [head = '', body = '', signature = ''] = access.split('.')
    for (let at = 0; at < access.length; at++) {
      const char = access[at] as string
      if (char === '.') continue
      // the highest bit of the six: of the last character of a signature the lower ones are not read
      const flipped = alphabet[alphabet.indexOf(char) ^ 32] as string
      const changed = access.slice(0, at) + flipped + access.slice(at + 1)
      await expect(signer.readAccess(changed), `at ${at}`).rejects.toMatchObject({ code: 'unauthorized' })
    }
    const odd = [
      '',
      '.',
      '..',
      head,
      `${head}.${body}`,
      `${head}.${body}.`,
      `${access}.${signature}`,
      'tb_x',
      ' ',
    ]
    for (const token of odd) await expect(signer.readAccess(token), token).rejects.toMatchObject(invalid)
  })

  test('that say they need no signature, or another kind of one, are refused', async () => {
    const claims = { sid: SESSION, sub: 'anna', iss: 'threadbase', exp: Math.ceil(Date.now() / 1_000) + 60 }
    const none = new UnsecuredJWT(claims).encode()
    const [, body = ''] = access.split('.')
    const headers = ['none', 'None', 'NONE', '', 'RS256', 'HS1', null, 7].map((alg) => ({
      ...headerOf(access),
      alg,
    }))
    const forged = headers.flatMap((header) => [
      `${encode(header)}.${body}.`,
      `${encode(header)}.${body}.AAAA`,
    ])
    const stronger = await forge(access, { alg: 'HS512' }, {}, SECRET.repeat(3))
    for (const token of [none, ...forged, stronger])
      await expect(signer.readAccess(token), token).rejects.toMatchObject(invalid)
  })

  test.each([
    ['another issuer', {}, { iss: 'someone' }],
    ['no issuer', {}, { iss: undefined }],
    ['no subject', {}, { sub: undefined }],
    ['no session', {}, { sid: undefined }],
    ['no end', {}, { exp: undefined }],
    ['a text for an end', {}, { exp: 'tomorrow' }],
    ['a beginning in the future', {}, { nbf: Math.ceil(Date.now() / 1_000) + 600 }],
    ['no key id', { kid: undefined }, {}],
    ['a key id of a prototype', { kid: '__proto__' }, {}],
    ['a key id that is a path', { kid: '../../dev/null' }, {}],
    ['extensions that must be understood', { crit: ['b64'], b64: false }, {}],
  ])('with %s are refused', async (_, header, claims) => {
    const token = await forge(access, header, claims).catch(() => undefined)
    // jose refuses to sign some of them
    if (token === undefined) return
    await expect(signer.readAccess(token)).rejects.toMatchObject({ code: 'unauthorized' })
  })

  test('for pages differ by session and secret, and those of an older secret are good', () => {
    const token = signer.csrfToken(SESSION)
    const next = SESSION.replace('0192', '0193')
    expect(signer.isCsrfToken(SESSION, token)).toBe(true)
    for (const wrong of [
      '',
      token.slice(1),
      `${token}A`,
      signer.csrfToken(next),
      signerOf(OTHER).csrfToken(SESSION),
    ])
      expect(signer.isCsrfToken(SESSION, wrong)).toBe(false)
    expect(signer.isCsrfToken(next, token)).toBe(false)
    expect(signerOf(OTHER, SECRET).isCsrfToken(SESSION, token)).toBe(true)
    expect(signerOf(OTHER).isCsrfToken(SESSION, token)).toBe(false)
  })

  test('tell nothing of the secrets', () => {
    expect(decode(access.split('.')[1])).toEqual({
      sid: SESSION,
      iss: 'threadbase',
      sub: 'anna',
      iat: expect.any(Number),
      exp: expect.any(Number),
    })
    expect(headerOf(access)).toEqual({
      alg: 'HS256',
      typ: 'at+jwt',
      kid: expect.stringMatching(/^[0-9a-f]{8}$/),
    })
  })
})
