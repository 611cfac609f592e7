import type { FastifyInstance, FastifyRequest } from 'fastify'
import type { Limiter } from '../cache/limiter.ts'
import { ThreadbaseError } from '../core/errors.ts'
import { addressGroup } from '../identity/service.ts'
import { accessOf } from './access.ts'

const WINDOW_S = 60
/** What asks whether the server lives must be answered, however often it asks. */
const UNLIMITED = new Set(['/health', '/ready'])

/**
 * Counts the requests of each user to each endpoint, and of each address to the public ones; says in each answer how
 * many are left. Register it after authentication. With 0 nothing is counted.
 */
export function registerRateLimits(app: FastifyInstance, limiter: Limiter, perMinute: number): void {
  if (perMinute === 0) return
  app.addHook('onRequest', async (request, reply) => {
    const route = request.routeOptions.url
    if (route === undefined || UNLIMITED.has(route)) return
    // a HEAD does the work of a GET, and counts as one
    const method = request.method === 'HEAD' ? 'GET' : request.method
    const taken = await limiter.take(`${callerOf(request)}:${method} ${route}`, {
      limit: perMinute,
      windowS: WINDOW_S,
    })
    reply.headers({
      'ratelimit-policy': `${perMinute};w=${WINDOW_S}`,
      'ratelimit-limit': perMinute,
      'ratelimit-remaining': taken.remaining,
      'ratelimit-reset': taken.resetS,
    })
    if (taken.allowed) return
    throw new ThreadbaseError('rate_limited', `more than ${perMinute} requests a minute to this endpoint`, {
      limit: perMinute,
      retryAfterS: taken.resetS,
    })
  })
}

/** Under two names: a user's id may be any text, also one that looks like an address. */
function callerOf(request: FastifyRequest): string {
  return accessOf(request) === 'public'
    ? `ratelimit-address:${addressGroup(request.ip)}`
    : `ratelimit:${request.identity.userId}`
}
