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
    const taken = await limiter.take(`ratelimit:${callerOf(request)}:${request.method} ${route}`, {
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

/** A user's id cannot begin like this: what is counted for an address is not counted for a user of that name. */
function callerOf(request: FastifyRequest): string {
  return accessOf(request) === 'public' ? `address ${addressGroup(request.ip)}` : request.identity.userId
}
