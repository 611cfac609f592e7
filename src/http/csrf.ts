import type { FastifyRequest } from 'fastify'
import { ThreadbaseError } from '../core/errors.ts'
import type { SessionService } from '../identity/sessions/service.ts'

const SAFE = new Set(['GET', 'HEAD', 'OPTIONS'])

/**
 * Whether a browser made the request: it says so in headers that no page can leave out or change. Other programs send
 * none of them.
 */
export function isFromBrowser({ headers }: FastifyRequest): boolean {
  return headers.origin !== undefined || headers['sec-fetch-site'] !== undefined
}

/**
 * Refuses what a page of another site made the browser send.
 * @param allowed origins whose pages may call, beside our own
 * @throws forbidden
 */
export function refuseForeignOrigin(request: FastifyRequest, allowed: ReadonlySet<string>): void {
  const { origin, 'sec-fetch-site': site } = request.headers
  // the browser's own word, which also holds where a proxy in between changes host or protocol
  if (site === 'same-origin' || site === 'none') return
  if (origin !== undefined ? isOwnOrigin(request, origin) || allowed.has(origin) : site === undefined) return
  throw new ThreadbaseError('forbidden', 'the request comes from a page of another origin')
}

/**
 * A change that a cookie vouches for must come from a page that could read what this server told it: the CSRF token of
 * the session.
 * @throws forbidden
 */
export function requireCsrfToken(
  request: FastifyRequest,
  sessionId: string,
  sessions: Pick<SessionService, 'isCsrfToken'>,
): void {
  const given = request.headers['x-csrf-token']
  if (typeof given === 'string' && sessions.isCsrfToken(sessionId, given)) return
  throw new ThreadbaseError(
    'forbidden',
    'a change with cookies needs the header x-csrf-token: GET /api/me tells its value',
    { reason: 'csrf' },
  )
}

export function changesSomething({ method }: FastifyRequest): boolean {
  return !SAFE.has(method)
}

function isOwnOrigin({ protocol, host }: FastifyRequest, origin: string): boolean {
  return origin === `${protocol}://${host}`
}
