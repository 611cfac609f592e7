import type { FastifyInstance } from 'fastify'
import { Counter, Gauge, Histogram, Registry } from 'prom-client'
import { Type } from 'typebox'
import type { CacheStats } from '../cache/cache.ts'
import { routeSchema } from '../core/http-shapes.ts'
import type { Database } from '../db/database.ts'
import type { MessageService } from '../messages/service.ts'
import type { EmbeddingService } from '../search/embed/service.ts'
import { registerProcessMetrics } from './process-metrics.ts'

export type MetricSources = {
  database: Pick<Database, 'stats'>
  messages: Pick<MessageService, 'queueStats'>
  embeddings: Pick<EmbeddingService, 'backlog'>
  streams: { open(): number }
  /** Of the cache since the start. */
  cacheStats: () => CacheStats
}

const BUCKETS_S = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30]
/** Requests that no route answers: their URLs are the callers' own, and must not become names of series. */
const NO_ROUTE = 'none'

/**
 * Counts and times every request of the app, in a registry of its own. Register it before what refuses requests, so
 * that refusals count, too.
 */
export function registerMetrics(app: FastifyInstance, sources: MetricSources): Registry {
  const registry = new Registry()
  observeRequests(app, registry)
  registerSources(registry, sources)
  const endProcessMetrics = registerProcessMetrics(registry)
  app.addHook('onClose', async () => {
    endProcessMetrics()
    registry.clear()
  })
  return registry
}

/** `GET /metrics`, in the text format of Prometheus. */
export function metricsRoute(app: FastifyInstance, registry: Registry): void {
  app.get(
    '/metrics',
    {
      schema: routeSchema({
        operationId: 'getMetrics',
        access: 'metrics',
        tags: ['service'],
        summary: 'Figures for Prometheus',
        querystring: Type.Object({}),
        response: {
          200: {
            description: 'Text in the exposition format 0.0.4.',
            content: { 'text/plain': { schema: Type.String() } },
          },
        },
      }),
    },
    async (_request, reply) => reply.type(registry.contentType).send(await registry.metrics()),
  )
}

function observeRequests(app: FastifyInstance, registry: Registry): void {
  const registers = [registry]
  let inFlight = 0
  const durations = new Histogram({
    name: 'threadbase_http_request_duration_seconds',
    help: 'Requests that were answered, and how long each took until the last byte was handed over.',
    labelNames: ['method', 'route', 'status'],
    buckets: BUCKETS_S,
    registers,
  })
  const bytes = new Counter({
    name: 'threadbase_http_response_bytes_total',
    help: 'Bytes of the bodies of answers that have a length; streams have none.',
    registers,
  })
  const aborted = new Counter({
    name: 'threadbase_http_requests_aborted_total',
    help: 'Requests whose client went away before the answer was whole.',
    registers,
  })
  new Gauge({
    name: 'threadbase_http_requests_in_flight',
    help: 'Requests that are being answered.',
    registers,
    collect() {
      this.set(inFlight)
    },
  })
  app.addHook('onRequest', (_request, reply, done) => {
    inFlight++
    reply.raw.once('close', () => {
      inFlight--
      if (!reply.raw.writableEnded) aborted.inc()
    })
    done()
  })
  app.addHook('onResponse', (request, reply, done) => {
    const route = request.routeOptions.url ?? NO_ROUTE
    durations.observe({ method: request.method, route, status: reply.statusCode }, reply.elapsedTime / 1_000)
    const length = Number(reply.getHeader('content-length') ?? 0)
    if (length > 0) bytes.inc(length)
    done()
  })
}

function registerSources(
  registry: Registry,
  { database, messages, embeddings, streams, cacheStats }: MetricSources,
): void {
  const gauge = (name: string, help: string, read: () => number) =>
    new Gauge({
      name: `threadbase_${name}`,
      help,
      registers: [registry],
      collect() {
        this.set(read())
      },
    })
  gauge('database_connections_open', 'Connections to the database.', () => database.stats().open)
  gauge('database_connections_idle', 'Connections that nobody uses.', () => database.stats().idle)
  gauge('database_connections_waiting', 'Callers that wait for a connection.', () => database.stats().waiting)
  gauge('append_queue_waiting', 'Appends that wait for a statement.', () => messages.queueStats().waiting)
  gauge('append_queue_running', 'Append statements under way.', () => messages.queueStats().running)
  new Gauge({
    name: 'threadbase_embeddings_waiting',
    help: 'Messages and results of sessions without an embedding yet, all servers together; of each, 100,000 are counted at most.',
    registers: [registry],
    async collect() {
      // the figures of the process are to be had without the database
      this.set(await embeddings.backlog().catch(() => Number.NaN))
    },
  })
  gauge('streams_open', 'Streams that are being read.', () => streams.open())
  new Counter({
    name: 'threadbase_cache_requests_total',
    help: 'Lookups in the cache by what came of them.',
    labelNames: ['result'],
    registers: [registry],
    collect() {
      const { hits, misses, errors } = cacheStats()
      this.reset()
      this.inc({ result: 'hit' }, hits)
      this.inc({ result: 'miss' }, misses)
      this.inc({ result: 'error' }, errors)
    },
  })
}
