import type { FastifyReply, FastifyRequest } from 'fastify'
import { ThreadbaseError } from '../core/errors.ts'
import type { Tokens } from '../identity/schema.ts'
import { isLoopbackHost } from './hosts.ts'

/** What a request proves itself with. */
export type Credential =
  | { kind: 'key'; key: string }
  | { kind: 'bearer'; token: string }
  /** Sent by the browser on its own, whichever page made the request. */
  | { kind: 'cookie'; token: string }

const BEARER = /^Bearer +([^\s,]+)$/i
const KEY_PREFIX = 'tb_'

// a cookie with this prefix is taken by browsers only over TLS, and set by no other host of the domain
const SECURE_PREFIX = '__Host-'
const ACCESS = 'threadbase_access'
const REFRESH = 'threadbase_refresh'

/**
 * From the header Authorization, else x-api-key, else a cookie; nowhere else: an address with a key in it ends up in
 * logs. Undefined when there is none.
 * @throws unauthorized for a header that is none of these
 */
export function readCredential(request: FastifyRequest): Credential | undefined {
  const { authorization, 'x-api-key': apiKey } = request.headers
  if (authorization !== undefined) {
    const token = BEARER.exec(authorization)?.[1]
    if (token === undefined)
      throw new ThreadbaseError('unauthorized', 'the header Authorization must be: Bearer and a token', {
        reason: 'invalid',
      })
    return token.startsWith(KEY_PREFIX) ? { kind: 'key', key: token } : { kind: 'bearer', token }
  }
  if (apiKey !== undefined) return { kind: 'key', key: String(apiKey) }
  const token = readCookie(request, ACCESS)
  return token === undefined ? undefined : { kind: 'cookie', token }
}

/** An API key in either header. Any other `Authorization` is somebody else's: a proxy passes on what it let in with. */
export function readApiKey({ headers }: FastifyRequest): string | undefined {
  const token = BEARER.exec(headers.authorization ?? '')?.[1]
  if (token?.startsWith(KEY_PREFIX)) return token
  return headers['x-api-key'] === undefined ? undefined : String(headers['x-api-key'])
}

export function readRefreshCookie(request: FastifyRequest): string | undefined {
  return readCookie(request, REFRESH)
}

/** Cookies that no script can read and no other site's page can send. Over TLS only, but for loopback. */
export function setTokenCookies(request: FastifyRequest, reply: FastifyReply, tokens: Tokens): void {
  const secure = isSecure(request)
  const options = { httpOnly: true, sameSite: 'strict', secure, path: '/' } as const
  reply.setCookie(nameOf(ACCESS, secure), tokens.accessToken, { ...options, maxAge: tokens.accessExpiresInS })
  reply.setCookie(nameOf(REFRESH, secure), tokens.refreshToken, {
    ...options,
    maxAge: tokens.refreshExpiresInS,
  })
}

export function clearTokenCookies(reply: FastifyReply): void {
  for (const name of [ACCESS, REFRESH])
    for (const secure of [true, false])
      reply.clearCookie(nameOf(name, secure), { httpOnly: true, sameSite: 'strict', secure, path: '/' })
}

/** Under the name that it was set under: without the prefix it may be what another host of the domain set. */
function readCookie(request: FastifyRequest, name: string): string | undefined {
  return request.cookies[nameOf(name, isSecure(request))]
}

const nameOf = (name: string, secure: boolean) => (secure ? `${SECURE_PREFIX}${name}` : name)

/** Everything but plain HTTP on loopback: there a cookie for TLS only would never come back. */
function isSecure({ protocol, host }: FastifyRequest): boolean {
  return protocol === 'https' || !isLoopbackHost(host)
}
