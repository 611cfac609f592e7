import type { FastifyInstance, FastifyRequest } from 'fastify'
import { ThreadbaseError } from '../core/errors.ts'
import type { Scope } from '../core/scope.ts'

declare module 'fastify' {
  interface FastifyRequest {
    /** On whose behalf the request is made; set before any route sees it. */
    scope: Scope
  }
}

/** The user that everything belongs to in single-user mode. */
export const LOCAL_USER = 'local'

const LOOPBACK_HOST = /^(localhost|127(\.\d{1,3}){3}|\[::1\])(:\d+)?$/i

/** An address to listen on: without brackets and port. */
export function isLoopbackAddress(address: string): boolean {
  return /^(localhost|127(\.\d{1,3}){3}|::1)$/i.test(address)
}

/**
 * Single-user mode: whoever reaches the loopback address is user `local`. A browser reaches it too, on behalf of any
 * page: a request that names another host (DNS rebinding) or comes from another origin is refused, unless the origin is
 * one of `origins`.
 */
export function registerSingleUser(app: FastifyInstance, origins: readonly string[] = []): void {
  const allowed = new Set(origins)
  const scope: Scope = Object.freeze({ userId: LOCAL_USER })
  app.decorateRequest('scope')
  app.addHook('onRequest', async (request) => {
    refuseForeignPages(request, allowed)
    request.scope = scope
  })
}

function refuseForeignPages({ headers }: FastifyRequest, allowed: ReadonlySet<string>): void {
  if (headers.host !== undefined && !LOOPBACK_HOST.test(headers.host)) {
    throw new ThreadbaseError('forbidden', 'single-user mode answers to localhost only')
  }
  const { origin } = headers
  if (origin === undefined || allowed.has(origin)) return
  if (!(URL.canParse(origin) && LOOPBACK_HOST.test(new URL(origin).host))) {
    throw new ThreadbaseError('forbidden', 'single-user mode does not answer to pages of other origins')
  }
}
