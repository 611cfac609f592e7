import type { FastifyInstance } from 'fastify'
import { ThreadbaseError } from '../core/errors.ts'
import { NEVER_MS } from './limits.ts'

declare module 'fastify' {
  interface FastifyContextConfig {
    /** The answer goes on for as long as the client reads: it has no time limit, and a user may have so many open. */
    stream?: boolean
  }
}

const RETRY_AFTER_S = 1

/**
 * Counts the open streams of each user: a route with `config: { stream: true }` holds one from before its handler runs
 * until its answer has ended or its client is gone. Register it after authentication and before the routes.
 * @returns how many are open, of all users
 */
export function registerStreams(app: FastifyInstance, perUser: number): { open(): number } {
  const openOf = new Map<string, number>()
  let open = 0
  const take = (user: string) => {
    const count = openOf.get(user) ?? 0
    if (count >= perUser) throw tooMany(perUser)
    openOf.set(user, count + 1)
    open++
  }
  const giveBack = (user: string) => {
    const count = openOf.get(user) ?? 0
    if (count > 1) openOf.set(user, count - 1)
    else openOf.delete(user)
    open--
  }
  app.addHook('onRoute', (route) => {
    if (route.config?.stream === true) route.handlerTimeout = NEVER_MS
  })
  app.addHook('preHandler', async (request, reply) => {
    if (request.routeOptions.config.stream !== true) return
    // a client that left while its request was checked would never be heard of again
    if (reply.raw.destroyed) return
    const { userId } = request.scope
    take(userId)
    reply.raw.once('close', () => giveBack(userId))
  })
  return { open: () => open }
}

function tooMany(limit: number): ThreadbaseError {
  const message = `you have ${limit} streams open, and more are not allowed at the same time: end one first`
  return new ThreadbaseError('rate_limited', message, { limit, retryAfterS: RETRY_AFTER_S })
}
