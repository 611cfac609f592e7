import type { SpanExporter } from '@opentelemetry/sdk-trace'
import type { Logger } from './core/log.ts'
import { VERSION } from './version.ts'

export type TraceOptions = {
  /** Where spans go, over OTLP/HTTP with JSON: a whole URL. */
  url: string
  headers: Record<string, string>
  serviceName: string
}

/** What a caller says of the trace that it is in (W3C Trace Context). */
export type Caller = { traceparent: string | undefined; tracestate: string | undefined }

/** The span of one request. */
export type RequestTrace = {
  /** Calls the function, and makes the spans of statements that follow from it children of this span. */
  within(act: () => void): void
  /** @param route its pattern, never the URL; undefined when no route answered */
  end(facts: { method: string; route: string | undefined; status: number; whole: boolean }): void
}

export type Traces = {
  beginRequest(caller: Caller): RequestTrace
  /** For the database driver: begins the span of a statement within a request; what it returns ends it. */
  beginStatement(name: string): ((error?: unknown) => void) | undefined
  /** Sends what is left, for some seconds at most. */
  close(): Promise<void>
}

const TRACEPARENT =
  /^(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?$/
const EXPORT_TIMEOUT_MS = 10_000
const CLOSE_TIMEOUT_MS = 3_000

/**
 * Traces by OpenTelemetry. Nothing is registered globally: several servers in one process, and the application around
 * them, keep their own. A collector that is away costs spans, never a request.
 */
export async function openTraces(options: TraceOptions, log: Logger): Promise<Traces> {
  // loaded here alone: who does not trace does not pay for it
  const [api, sdk, { AsyncLocalStorageContextManager }, { resourceFromAttributes }] = await Promise.all([
    import('@opentelemetry/api'),
    import('@opentelemetry/sdk-trace'),
    import('@opentelemetry/context-async-hooks'),
    import('@opentelemetry/resources'),
  ])
  const processor = new sdk.BatchSpanProcessor({ exporter: await openExporter(options, log) })
  const provider = new sdk.TracerProvider({
    resource: resourceFromAttributes({ 'service.name': options.serviceName, 'service.version': VERSION }),
    sampler: new sdk.ParentBasedSampler({ root: new sdk.AlwaysOnSampler() }),
    spanProcessors: [processor],
  })
  const tracer = provider.getTracer('threadbase', VERSION)
  const contexts = new AsyncLocalStorageContextManager()
  const { ERROR } = api.SpanStatusCode

  return {
    beginRequest(caller) {
      const span = tracer.startSpan('request', { kind: api.SpanKind.SERVER }, callerContext(api, caller))
      const context = api.trace.setSpan(api.ROOT_CONTEXT, span)
      return {
        within: (act) => contexts.with(context, act),
        end({ method, route, status, whole }) {
          span.updateName(route === undefined ? method : `${method} ${route}`)
          span.setAttribute('http.request.method', method)
          if (route !== undefined) span.setAttribute('http.route', route)
          span.setAttribute('http.response.status_code', status)
          if (!whole) span.setAttribute('error.type', 'aborted')
          if (status >= 500 || !whole) span.setStatus({ code: ERROR })
          span.end()
        },
      }
    },
    beginStatement(name) {
      const context = contexts.active()
      if (api.trace.getSpan(context)?.isRecording() !== true) return undefined
      const attributes = { 'db.system.name': 'postgresql', 'db.query.summary': name }
      const span = tracer.startSpan(name, { kind: api.SpanKind.CLIENT, attributes }, context)
      return (error) => {
        if (error !== undefined) {
          // neither message nor stack: they may repeat values
          span.setAttribute('error.type', typeOf(error))
          span.setStatus({ code: ERROR })
        }
        span.end()
      }
    },
    async close() {
      contexts.disable()
      let timer: NodeJS.Timeout | undefined
      const late = new Promise<void>((resolve) => {
        timer = setTimeout(resolve, CLOSE_TIMEOUT_MS)
      })
      await Promise.race([provider.shutdown().catch(() => {}), late])
      clearTimeout(timer)
    },
  }
}

type Api = typeof import('@opentelemetry/api')

function callerContext(api: Api, { traceparent, tracestate }: Caller) {
  const [, traceId, spanId, flags] = TRACEPARENT.exec(traceparent ?? '') ?? []
  if (traceId === undefined || spanId === undefined) return api.ROOT_CONTEXT
  return api.trace.setSpanContext(api.ROOT_CONTEXT, {
    traceId,
    spanId,
    traceFlags: Number.parseInt(flags ?? '0', 16) & api.TraceFlags.SAMPLED,
    traceState: tracestate === undefined ? undefined : api.createTraceState(tracestate),
    isRemote: true,
  })
}

/** The exporter, which says once an outage that spans are lost, and once that they are taken again. */
async function openExporter({ url, headers }: TraceOptions, log: Logger): Promise<SpanExporter> {
  const { OTLPTraceExporter } = await import('@opentelemetry/exporter-trace-otlp-http')
  const exporter = new OTLPTraceExporter({ url, headers, timeoutMillis: EXPORT_TIMEOUT_MS })
  let away = false
  return {
    export(spans, done) {
      exporter.export(spans, (result) => {
        const failed = result.error !== undefined
        if (failed && !away)
          log.warn({ spans: spans.length }, 'the collector does not take traces: they are lost')
        if (!failed && away) log.info({}, 'the collector takes traces again')
        away = failed
        done(result)
      })
    },
    forceFlush: () => exporter.forceFlush(),
    shutdown: () => exporter.shutdown(),
  }
}

function typeOf(error: unknown): string {
  const { code, name } = error as { code?: unknown; name?: unknown }
  return typeof code === 'string' ? code : typeof name === 'string' ? name : 'error'
}
