import { createHmac, hash } from 'node:crypto'
import { errors, jwtVerify, SignJWT } from 'jose'
import { ThreadbaseError } from '../core/errors.ts'
import { equalSecrets } from '../core/secrets.ts'

export type TokenSettings = {
  /** The first signs, all verify. 32 characters at least each. */
  secrets: readonly string[]
  accessTtlS: number
  refreshTtlS: number
}

/** What an access token says. */
export type AccessClaims = { userId: string; sessionId: string; expiresAtMs: number }
/** What a refresh token says; `generation` counts the refreshes of its session from 1. */
export type RefreshClaims = { userId: string; sessionId: string; generation: number }

export type TokenSigner = ReturnType<typeof createTokenSigner>

const ISSUER = 'threadbase'
const ALGORITHM = 'HS256'
const ACCESS = 'at+jwt'
const REFRESH = 'rt+jwt'

/** Access and refresh tokens of our own: JWTs signed with HMAC, of two types that never stand for each other. */
export function createTokenSigner({ secrets, accessTtlS, refreshTtlS }: TokenSettings) {
  const keys = new Map(secrets.map((secret) => [keyId(secret), Buffer.from(secret)]))
  const [current = ''] = secrets
  const sign = (type: string, claims: Record<string, unknown>, userId: string, ttlS: number) =>
    new SignJWT(claims)
      .setProtectedHeader({ alg: ALGORITHM, typ: type, kid: keyId(current) })
      .setIssuer(ISSUER)
      .setSubject(userId)
      .setIssuedAt()
      .setExpirationTime(`${ttlS}s`)
      .sign(Buffer.from(current))
  const read = async (token: string, type: string) => {
    try {
      const { payload } = await jwtVerify(token, ({ kid }) => keyOf(keys, kid), {
        algorithms: [ALGORITHM],
        issuer: ISSUER,
        typ: type,
        requiredClaims: ['sub', 'exp', 'sid'],
      })
      return payload
    } catch (error) {
      throw toUnauthorized(error)
    }
  }
  return {
    accessTtlS,
    refreshTtlS,

    signAccess: (userId: string, sessionId: string) => sign(ACCESS, { sid: sessionId }, userId, accessTtlS),

    signRefresh: ({ userId, sessionId, generation }: RefreshClaims) =>
      sign(REFRESH, { sid: sessionId, gen: generation }, userId, refreshTtlS),

    /** @throws unauthorized for anything but a good access token of ours */
    async readAccess(token: string): Promise<AccessClaims> {
      const { sub = '', sid, exp = 0 } = await read(token, ACCESS)
      return { userId: sub, sessionId: String(sid), expiresAtMs: exp * 1_000 }
    },

    /** @throws unauthorized for anything but a refresh token of ours that has not expired */
    async readRefresh(token: string): Promise<RefreshClaims> {
      const { sub = '', sid, gen } = await read(token, REFRESH)
      return { userId: sub, sessionId: String(sid), generation: Number(gen) }
    },

    /** What a page must send along with a change: it proves that the page can read what this server answered. */
    csrfToken: (sessionId: string): string => csrf(current, sessionId),

    isCsrfToken: (sessionId: string, given: string): boolean =>
      secrets.some((secret) => equalSecrets(csrf(secret, sessionId), given)),
  }
}

function keyId(secret: string): string {
  return hash('sha256', `kid ${secret}`, 'hex').slice(0, 8)
}

function keyOf(keys: Map<string, Buffer>, id: string | undefined): Buffer {
  const key = keys.get(id ?? '')
  if (key === undefined) throw new errors.JWSInvalid('signed with another key')
  return key
}

function csrf(secret: string, sessionId: string): string {
  return createHmac('sha256', secret).update(`csrf ${sessionId}`).digest('base64url')
}

/** What a caller learns of a token that is refused: that it has expired, or that it is not good. */
export function toUnauthorized(error: unknown): unknown {
  if (error instanceof errors.JWTExpired)
    return new ThreadbaseError('unauthorized', 'the token has expired', { reason: 'expired' })
  if (error instanceof errors.JOSEError)
    return new ThreadbaseError('unauthorized', 'the token is not valid', { reason: 'invalid' })
  return error
}
