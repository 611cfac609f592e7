import type { FastifyReply, FastifyRequest } from 'fastify'

/** What every answer says to browsers: it is data, not a page, and no page may frame it. `/docs` has a policy of its own. */
const HEADERS = Object.freeze({
  'content-security-policy':
    "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
  'x-content-type-options': 'nosniff',
  'x-frame-options': 'DENY',
  'referrer-policy': 'no-referrer',
  'cross-origin-resource-policy': 'same-origin',
  'cross-origin-opener-policy': 'same-origin',
  'x-permitted-cross-domain-policies': 'none',
})
const HSTS = `max-age=${365 * 86_400}; includeSubDomains`

/** The same for an answer that is written past the framework. */
export const RAW_HEADERS = Object.entries(HEADERS)
  .map(([name, value]) => `${name}: ${value}\r\n`)
  .join('')

export type HeaderOptions = {
  /** Whether pages of other origins read answers: CORS says which, and this header must not say no to all of them. */
  crossOrigin: boolean
}

/**
 * What sets the security headers of an answer; also for answers to requests that reach no hook. They are constant, and
 * set by hand: @fastify/helmet makes them anew for each request, which costs as much as the rest of the framework.
 */
export function securityHeaders({ crossOrigin }: HeaderOptions) {
  const headers = crossOrigin ? { ...HEADERS, 'cross-origin-resource-policy': 'cross-origin' } : HEADERS
  return (request: FastifyRequest, reply: FastifyReply): void => {
    reply.headers(headers)
    // of the connection, or of the proxy that is trusted: a browser ignores it over http anyway
    if (request.protocol === 'https') reply.header('strict-transport-security', HSTS)
    // what belongs to a user must not stay in a shared cache or on a shared computer
    if (isApi(request)) reply.header('cache-control', 'no-store')
  }
}

/** By the route; a request that has none goes by its URL, which may be a whole one (RFC 9112, section 3.2.2). */
function isApi({ routeOptions, url }: FastifyRequest): boolean {
  return (routeOptions?.url ?? url).replace(/^https?:\/\/[^/]*/i, '').startsWith('/api/')
}
