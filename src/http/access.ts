import type { FastifyInstance, FastifyRequest } from 'fastify'
import { ThreadbaseError } from '../core/errors.ts'
import { ACCESS, type Access } from '../core/http-shapes.ts'
import type { Identity } from '../identity/schema.ts'

declare module 'fastify' {
  interface FastifyContextConfig {
    /** Who may call the route; set for every route when it is added. */
    access?: Access
  }
}

const READING = new Set(['GET', 'HEAD', 'OPTIONS'])
/** Pages that show the API to whoever wants to use it. */
const PUBLIC_PAGES = /^\/(docs(\/|$)|openapi\.json$)/

/** For whoever sends no credential: what a sign-in or a registration has to say is shorter by far. */
const PUBLIC_BODY_BYTES = 64_000

const OF_SUPERUSERS: ReadonlySet<Access> = new Set(['admin', 'metrics'])
/** What an API key needs the scope `admin` for. */
const OF_ACCOUNTS: ReadonlySet<Access> = new Set(['account', 'admin', 'metrics'])

const SECURITY = [{ bearer: [] }, { apiKey: [] }, { cookie: [] }]

/**
 * Gives every route its access: what its schema says, else `read` for GET and `write` for all else, so that a route that
 * says nothing is not open. The OpenAPI document says the same. Before the routes. What anybody may call takes small
 * bodies only.
 */
export function registerAccess(app: FastifyInstance): void {
  const { bodyLimit = PUBLIC_BODY_BYTES } = app.initialConfig
  app.addHook('onRoute', (route) => {
    const schema = route.schema as Record<string, unknown> | undefined
    const access = readAccess(schema?.['x-access']) ?? defaultAccess(route.url, [route.method].flat())
    route.config = { ...route.config, access }
    if (access === 'public') route.bodyLimit = Math.min(bodyLimit, PUBLIC_BODY_BYTES)
    if (schema !== undefined) {
      schema['x-access'] = access
      schema.security = access === 'public' ? [] : SECURITY
    }
  })
}

function readAccess(value: unknown): Access | undefined {
  return ACCESS.find((access) => access === value)
}

function defaultAccess(url: string, methods: string[]): Access {
  if (PUBLIC_PAGES.test(url)) return 'public'
  return methods.every((method) => READING.has(method)) ? 'read' : 'write'
}

/** Who may call what a request asks for. What is no route is nobody's secret: its answer is `not_found`. */
export function accessOf({ routeOptions }: FastifyRequest): Access {
  return routeOptions.config.access ?? 'public'
}

/** @throws forbidden when the user is not a superuser, or the API key lacks the scope */
export function requireAccess({ isSuperuser, scopes, via }: Identity, access: Access): void {
  if (access === 'metrics' && via === 'single-user') return
  if (OF_SUPERUSERS.has(access) && !isSuperuser)
    throw new ThreadbaseError('forbidden', 'this is for superusers')
  if (scopes === undefined) {
    if (access === 'ingest' && !isSuperuser && via !== 'single-user')
      throw new ThreadbaseError('forbidden', 'this needs an API key with the scope ingest', {
        scope: 'ingest',
      })
    return
  }
  const needed = OF_ACCOUNTS.has(access) ? 'admin' : access
  if (!scopes.includes(needed))
    throw new ThreadbaseError('forbidden', `the API key lacks the scope ${needed}`, { scope: needed })
}
