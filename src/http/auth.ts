import type { FastifyInstance, FastifyRequest } from 'fastify'
import { ThreadbaseError } from '../core/errors.ts'
import { LOCAL_USER, type Scope } from '../core/scope.ts'
import { equalSecrets } from '../core/secrets.ts'
import type { Identity } from '../identity/schema.ts'
import type { AuthMode, IdentityService } from '../identity/service.ts'
import { accessOf, requireAccess } from './access.ts'
import { readApiKey, readCredential } from './credentials.ts'
import { changesSomething, refuseForeignOrigin, requireCsrfToken } from './csrf.ts'
import { isLoopbackHost } from './hosts.ts'

declare module 'fastify' {
  interface FastifyRequest {
    /** On whose behalf the request is made; set before any route that is not public sees it. */
    scope: Scope
    /** Who makes the request; set with `scope`. */
    identity: Identity
  }
}

export type AuthOptions = {
  mode: AuthMode
  identity: IdentityService
  /** Origins whose pages may call, beside our own. */
  origins: ReadonlySet<string>
  /** Of `proxy`. */
  proxySecret: string | undefined
  /** Reads the figures of `/metrics` and nothing else. */
  metricsToken: string | undefined
}

/** Finds out who makes a request. @throws unauthorized; unavailable */
export type Authenticator = (request: FastifyRequest) => Promise<Identity>

/** Sets `identity` and `scope` of every request to a route that is not public, or refuses it. */
export function registerAuth(app: FastifyInstance, options: AuthOptions): void {
  const authenticate = createAuthenticator(options)
  app.decorateRequest('scope')
  app.decorateRequest('identity')
  app.addHook('onRequest', async (request) => {
    if (options.mode === 'single-user') refuseForeignPages(request, options.origins)
    const access = accessOf(request)
    if (access === 'public') return
    const identity =
      access === 'metrics' && hasMetricsToken(request, options.metricsToken)
        ? MONITOR
        : await authenticate(request)
    if (identity !== MONITOR) requireAccess(identity, access)
    request.identity = identity
    request.scope = { userId: identity.userId }
  })
}

export function createAuthenticator(options: AuthOptions): Authenticator {
  const { mode, identity } = options
  if (mode === 'single-user') {
    const local: Identity = Object.freeze({ userId: LOCAL_USER, via: 'single-user', isSuperuser: false })
    return async () => local
  }
  return async (request) => {
    if (mode === 'proxy') {
      const key = readApiKey(request)
      if (key !== undefined) return identity.ofKey(key)
      const userId = readProxyUser(request, options.proxySecret)
      // the proxy may know the user by a cookie, which a browser sends along for pages of other sites, too
      if (changesSomething(request)) refuseForeignOrigin(request, options.origins)
      return identity.ofProxy(userId)
    }
    const credential = readCredential(request)
    if (credential?.kind === 'key') return identity.ofKey(credential.key)
    if (credential === undefined) throw new ThreadbaseError('unauthorized', 'sign in, or send a credential')
    if (mode === 'jwt') {
      // their tokens come in a header: a cookie is never one of ours here
      if (credential.kind === 'cookie') throw new ThreadbaseError('unauthorized', 'send a bearer token')
      return identity.ofExternalToken(credential.token)
    }
    const found = await identity.ofAccessToken(credential.token)
    if (credential.kind === 'cookie' && changesSomething(request)) {
      refuseForeignOrigin(request, options.origins)
      requireCsrfToken(request, String(found.sessionId), identity.sessions)
    }
    return found
  }
}

/** Who reads figures with METRICS_TOKEN: no user. */
const MONITOR: Identity = Object.freeze({ userId: 'METRICS_TOKEN', via: 'token', isSuperuser: false })

function hasMetricsToken({ headers }: FastifyRequest, token: string | undefined): boolean {
  const given = /^Bearer +(\S+)$/i.exec(headers.authorization ?? '')?.[1]
  return token !== undefined && given !== undefined && equalSecrets(given, token)
}

const USER_ID = /^[\x21-\x7e]{1,255}$/

/** The user whom the proxy names, once it has proven that it is the proxy. */
function readProxyUser({ raw }: FastifyRequest, secret: string | undefined): string {
  // each once: a second one is what a client sent along
  const one = (name: string) => {
    const values = raw.rawHeaders.filter((_, i, all) => i % 2 === 1 && all[i - 1]?.toLowerCase() === name)
    return values.length === 1 ? values[0] : undefined
  }
  const given = one('x-proxy-secret')
  if (secret === undefined || given === undefined || !equalSecrets(given, secret))
    throw new ThreadbaseError('unauthorized', 'the request does not come from the trusted proxy')
  const userId = one('x-user-id')
  if (userId === undefined || !USER_ID.test(userId))
    throw new ThreadbaseError('unauthorized', 'the proxy names no user: X-User-Id must be one ASCII text')
  return userId
}

/**
 * Single-user mode: whoever reaches the loopback address is user `local`. A browser reaches it too, on behalf of any
 * page: a request that names another host (DNS rebinding) or comes from another origin is refused, unless the origin is
 * one of `origins`.
 */
function refuseForeignPages({ headers }: FastifyRequest, allowed: ReadonlySet<string>): void {
  if (headers.host !== undefined && !isLoopbackHost(headers.host)) {
    throw new ThreadbaseError('forbidden', 'single-user mode answers to localhost only')
  }
  const { origin } = headers
  if (origin === undefined || allowed.has(origin)) return
  if (!(URL.canParse(origin) && isLoopbackHost(new URL(origin).host))) {
    throw new ThreadbaseError('forbidden', 'single-user mode does not answer to pages of other origins')
  }
}
