import cors from '@fastify/cors'
import type { FastifyInstance } from 'fastify'

const PREFLIGHT_VALID_S = 600

/**
 * Lets pages of the listed origins call with credentials. Preflights are answered here, without credentials and before
 * any later hook. Any other origin gets no CORS header at all. With an empty list nothing is registered.
 */
export async function registerCors(app: FastifyInstance, origins: readonly string[]): Promise<void> {
  if (origins.length === 0) return
  const allowed = new Set(origins)
  await app.register(cors, {
    // a function, so that answers to other origins carry no CORS header and all answers `vary: origin`
    origin: (origin, done) => done(null, origin !== undefined && allowed.has(origin) ? origin : false),
    credentials: true,
    methods: ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE'],
    allowedHeaders: [
      'authorization',
      'content-type',
      'x-api-key',
      'x-csrf-token',
      'x-request-id',
      'traceparent',
      'tracestate',
      'last-event-id',
      'if-match',
      'if-none-match',
    ],
    exposedHeaders: [
      'x-request-id',
      'location',
      'etag',
      'retry-after',
      'ratelimit-limit',
      'ratelimit-remaining',
      'ratelimit-reset',
      'ratelimit-policy',
      'content-disposition',
      'x-embedding',
    ],
    maxAge: PREFLIGHT_VALID_S,
    // its refusal of an incomplete preflight is plain text
    strictPreflight: false,
  })
}
