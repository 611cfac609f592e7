import type { FastifyInstance } from 'fastify'
import type { RequestTrace, Traces } from '../traces.ts'

declare module 'fastify' {
  interface FastifyRequest {
    trace: RequestTrace | null
  }
}

const first = (header: string | string[] | undefined) => (Array.isArray(header) ? header[0] : header)

/** A span for each request, continuing the caller's trace, until its last byte is sent or its client is gone. */
export function registerTraces(app: FastifyInstance, traces: Traces): void {
  app.decorateRequest('trace', null)
  app.addHook('onRequest', (request, reply, done) => {
    const { traceparent, tracestate } = request.headers
    const trace = traces.beginRequest({ traceparent: first(traceparent), tracestate: first(tracestate) })
    request.trace = trace
    reply.raw.once('close', () => {
      trace.end({
        method: request.method,
        route: request.routeOptions.url,
        status: reply.statusCode,
        whole: reply.raw.writableEnded,
      })
    })
    trace.within(done)
  })
  // a body arrives as events of the connection, which is in no request's context
  app.addHook('preValidation', (request, _reply, done) => {
    if (request.trace === null) done()
    else request.trace.within(done)
  })
}
