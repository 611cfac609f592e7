import { execFile } from 'node:child_process'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { promisify } from 'node:util'
import { pino } from 'pino'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { availableStores, cleanUpAfterAll } from '../../test/e2e/processes.ts'
import { engines, recordingLog } from '../../test/harness.ts'
import { type Api, type Json, openApi } from '../../test/http.ts'
import { parseConfig } from '../config.ts'
import { startServer } from '../server.ts'
import { openTraces, type Traces } from '../traces.ts'

type Span = {
  traceId: string
  spanId: string
  parentSpanId?: string
  name: string
  kind: number
  status: { code: number; message?: string }
  attributes: Record<string, unknown>
}

/** A collector that takes OTLP over HTTP as JSON. */
async function startCollector() {
  const requests: { url: string; headers: Json; body: Json; text: string }[] = []
  const server: Server = createServer((request, response) => {
    let text = ''
    request.setEncoding('utf8').on('data', (chunk) => {
      text += chunk
    })
    request.on('end', () => {
      requests.push({ url: String(request.url), headers: request.headers, body: JSON.parse(text), text })
      response.writeHead(200, { 'content-type': 'application/json' }).end('{}')
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const spans = (): Span[] =>
    requests.flatMap(({ body }) =>
      body.resourceSpans.flatMap(({ scopeSpans }: Json) =>
        scopeSpans.flatMap((scope: Json) =>
          scope.spans.map((span: Json) => ({ ...span, attributes: attributesOf(span.attributes) })),
        ),
      ),
    )
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/v1/traces`
  const close = () => new Promise((resolve) => server.close(resolve))
  return { url, requests, spans, close }
}

const attributesOf = (list: Json): Record<string, unknown> =>
  Object.fromEntries(list.map(({ key, value }: Json) => [key, Object.values(value)[0]]))

cleanUpAfterAll()

const SERVER = 2
const CLIENT = 3

describe.each(engines)('traces on $name', (engine) => {
  let collector: Awaited<ReturnType<typeof startCollector>>
  let traces: Traces
  let api: Api
  let spans: Span[] = []
  const trace = 'a'.repeat(32)
  const caller = 'b'.repeat(16)

  beforeAll(async () => {
    if (!engine.available) return
    collector = await startCollector()
    const options = { url: collector.url, headers: { 'api-key': 'k' }, serviceName: 'tb-test' }
    traces = await openTraces(options, recordingLog().log)
    api = await openApi(engine, { traces, trace: traces.beginStatement })
    const id = await api.newThread({ title: 'hunter2' })
    const traced = { traceparent: `00-${trace}-${caller}-01`, tracestate: 'x=y' }
    await Promise.all([
      api.call('GET', `/api/threads/${id}?`, undefined, traced),
      api.call('POST', `/api/threads/${id}/messages`, { role: 'user', content: 'hunter2' }),
      api.call('GET', '/nope/hunter2'),
      api.call('GET', '/api/threads', undefined, { traceparent: `00-${'c'.repeat(32)}-${caller}-00` }),
      api.call('GET', '/health', undefined, { traceparent: `00-${'0'.repeat(32)}-${caller}-01` }),
    ])
    // outside of a request there is nothing to belong to
    await api.opened.tb.threads.list({ userId: 'local' })
    await api.app.close()
    await api.opened.close()
    await traces.close()
    spans = collector.spans()
  })
  afterAll(() => collector?.close())

  const only = (name: string): Span => {
    const found = spans.filter((span) => span.name === name)
    expect(found, name).toHaveLength(1)
    return found[0] as Span
  }
  const childrenOf = (span: Span) => spans.filter(({ parentSpanId }) => parentSpanId === span.spanId)

  test.skipIf(!engine.available)('a request is a span, which continues the trace of its caller', () => {
    const span = only('GET /api/threads/:id')
    expect(span).toMatchObject({ traceId: trace, parentSpanId: caller, kind: SERVER })
    expect(span.attributes).toEqual({
      'http.request.method': 'GET',
      'http.route': '/api/threads/:id',
      'http.response.status_code': 200,
    })
    expect(only('GET /health').traceId).not.toMatch(/^0+$/)
    expect(only('GET').attributes).toMatchObject({ 'http.response.status_code': 404 })
    // its caller does not want it
    expect(spans.some(({ traceId }) => traceId === 'c'.repeat(32))).toBe(false)
  })

  test.skipIf(!engine.available)('statements are its children, after a body was read, too', () => {
    for (const name of ['GET /api/threads/:id', 'POST /api/threads/:id/messages', 'POST /api/threads']) {
      const span = only(name)
      const children = childrenOf(span)
      expect(children.length, name).toBeGreaterThan(0)
      for (const child of children) {
        expect(child).toMatchObject({ kind: CLIENT, traceId: span.traceId })
        expect(child.name).toMatch(/^[\w.-]+$/)
        expect(child.attributes).toEqual({ 'db.system.name': 'postgresql', 'db.query.summary': child.name })
      }
    }
    expect(childrenOf(only('POST /api/threads/:id/messages'))[0]?.name).toMatch(/^messages\./)
    const roots = new Set(spans.filter(({ kind }) => kind === SERVER).map(({ spanId }) => spanId))
    for (const span of spans.filter(({ kind }) => kind === CLIENT))
      expect(roots, span.name).toContain(span.parentSpanId)
  })

  test.skipIf(!engine.available)('nothing of what was stored or who stored it is sent', () => {
    for (const { url, headers, body, text } of collector.requests) {
      expect(url).toBe('/v1/traces')
      expect(headers['api-key']).toBe('k')
      const [{ resource }] = body.resourceSpans
      expect(attributesOf(resource.attributes)).toMatchObject({ 'service.name': 'tb-test' })
      expect(text).not.toMatch(/hunter2|local\b/)
    }
  })
})

describe('a collector', () => {
  const [engine] = engines as [(typeof engines)[0]]

  test('that is away costs no request, and is told of once', async () => {
    const { log, logged } = recordingLog()
    const traces = await openTraces(
      { url: 'http://127.0.0.1:1/v1/traces', headers: {}, serviceName: 'x' },
      log,
    )
    const api = await openApi(engine, { traces, trace: traces.beginStatement })
    for (let i = 0; i < 3; i++) expect((await api.call('GET', '/api/threads')).status).toBe(200)
    await api.app.close()
    await api.opened.close()
    await traces.close()
    expect(logged.filter(({ level }) => level === 'warn').length).toBeLessThanOrEqual(1)
  })

  test('that refuses spans is told of', async () => {
    const refusing = createServer((_request, response) => void response.writeHead(400).end())
    await new Promise<void>((resolve) => refusing.listen(0, '127.0.0.1', resolve))
    const { log, logged } = recordingLog()
    const url = `http://127.0.0.1:${(refusing.address() as AddressInfo).port}/hunter2`
    const traces = await openTraces({ url, headers: {}, serviceName: 'x' }, log)
    const facts = { method: 'GET', route: '/x', status: 200, whole: true }
    traces.beginRequest({ traceparent: undefined, tracestate: undefined }).end(facts)
    await traces.close()
    expect(logged).toEqual([{ level: 'warn', facts: { spans: 1 }, message: expect.stringContaining('lost') }])
    refusing.close()
  })

  test('of one server gets nothing of another in the same process', async () => {
    const collectors = await Promise.all([startCollector(), startCollector()])
    for (const [i, { url }] of collectors.entries()) {
      const traces = await openTraces({ url, headers: {}, serviceName: `s${i}` }, recordingLog().log)
      const api = await openApi(engine, { traces, trace: traces.beginStatement })
      await api.call('GET', i === 0 ? '/health' : '/ready')
      await api.app.close()
      await api.opened.close()
      await traces.close()
    }
    const names = collectors.map(({ spans }) =>
      spans()
        .filter(({ kind }) => kind === SERVER)
        .map(({ name }) => name),
    )
    expect(names).toEqual([['GET /health'], ['GET /ready']])
    for (const collector of collectors) await collector.close()
  })

  test('is named by the environment of the server, which sends what is left when it closes', async () => {
    const collector = await startCollector()
    const env = {
      ...(await availableStores.at(-1)?.newEnv()),
      PORT: '0',
      OTEL_EXPORTER_OTLP_ENDPOINT: collector.url.replace('/v1/traces', ''),
      OTEL_SERVICE_NAME: 'named',
    }
    const server = await startServer(parseConfig(env), pino({ level: 'silent' }))
    expect((await fetch(`${server.url}/api/threads`)).status).toBe(200)
    // a client that leaves ends the span, too
    const gone = new AbortController()
    const upload = fetch(`${server.url}/api/threads`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: new ReadableStream({ start: (controller) => controller.enqueue(Buffer.from('{')) }),
      duplex: 'half',
      signal: gone.signal,
    } as RequestInit)
    setTimeout(() => gone.abort(), 200)
    await expect(upload).rejects.toThrow()
    await server.close()
    const [list, post] = ['GET /api/threads', 'POST /api/threads'].map((name) =>
      collector.spans().find((span) => span.name === name),
    )
    expect(list?.attributes['error.type']).toBeUndefined()
    expect(collector.spans().filter(({ parentSpanId }) => parentSpanId === list?.spanId)).toHaveLength(1)
    expect(post?.attributes['error.type']).toBe('aborted')
    expect(collector.requests[0]?.text).toContain('"named"')
    await collector.close()
  })
})

test('without a collector nothing that makes or sends spans is loaded', async () => {
  // the API alone comes with the metrics library
  const program = `import { createRequire } from 'node:module'
    const { startServer } = await import(${JSON.stringify(new URL('../server.ts', import.meta.url).href)})
    const loaded = Object.keys(createRequire(import.meta.url).cache)
    console.log(typeof startServer, loaded.length > 50, loaded.filter((file) => file.includes('@opentelemetry') && !file.includes('@opentelemetry/api/')))`
  const { stdout } = await promisify(execFile)(process.execPath, ['--input-type=module', '-e', program])
  expect(stdout.trim()).toBe('function true []')
})
