import { expect, test } from 'vitest'
import { type Engine, engines } from '../../test/harness.ts'
import { type Api, describeApi, openApi } from '../../test/http.ts'

type Sample = { name: string; labels: Record<string, string>; value: number }

/** The samples of a text in Prometheus' exposition format; what is not of that format fails. */
function parseMetrics(text: string): Sample[] {
  return text.split('\n').flatMap((line) => {
    if (line === '' || /^# (HELP|TYPE) [a-z_]\w* \S/.test(line)) return []
    const [, name, labels = '', value] = /^([a-z_]\w*)(?:\{(.*)\})? (\S+)$/.exec(line) ?? []
    if (name === undefined || Number.isNaN(Number(value))) throw new Error(`not a sample: ${line}`)
    const pairs = [...labels.matchAll(/(\w+)="([^"]*)"/g)].map(([, key, text]) => [key, text])
    return [{ name, labels: Object.fromEntries(pairs), value: Number(value) }]
  })
}

const read = async (api: Api) => parseMetrics((await api.call('GET', '/metrics')).text)
const sampleOf = (samples: Sample[], name: string, labels: Record<string, string> = {}) =>
  samples.find(
    (sample) =>
      sample.name === name && Object.entries(labels).every(([key, value]) => sample.labels[key] === value),
  )?.value

const COUNT = 'threadbase_http_request_duration_seconds_count'

describeApi('GET /metrics', (api, engine) => {
  test('counts requests by method, pattern and status, never by URL', async () => {
    const id = await api.newThread()
    for (let i = 0; i < 3; i++) await api.call('GET', `/api/threads/${id}`)
    await api.call('GET', '/api/threads/not-a-uuid')
    await api.call('GET', '/secret-path/of-a-scanner?token=hunter2')
    await api.call('GET', '/api/threads', undefined, { host: 'evil.example' })
    const answer = await api.call('GET', '/metrics')
    expect(answer.headers['content-type']).toBe('text/plain; version=0.0.4; charset=utf-8')
    expect(answer.text).not.toMatch(/secret-path|hunter2|not-a-uuid|evil/)
    expect(answer.text).not.toContain(id)
    const samples = parseMetrics(answer.text)
    const count = (route: string, status: string, method = 'GET') =>
      sampleOf(samples, COUNT, { method, route, status })
    expect(count('/api/threads', '201', 'POST')).toBe(1)
    expect(count('/api/threads/:id', '200')).toBe(3)
    expect(count('/api/threads/:id', '400')).toBe(1)
    expect(count('none', '404')).toBe(1)
    expect(count('/api/threads', '403')).toBe(1)
    const bucket = { route: '/api/threads/:id', status: '200', le: '+Inf' }
    expect(sampleOf(samples, 'threadbase_http_request_duration_seconds_bucket', bucket)).toBe(3)
    expect(sampleOf(samples, 'threadbase_http_response_bytes_total')).toBeGreaterThan(100)
    // this one itself
    expect(sampleOf(samples, 'threadbase_http_requests_in_flight')).toBe(1)
  })

  test('shows pool, queue, streams and process', async () => {
    const id = await api.newThread()
    const appends = Array.from({ length: 40 }, (_, i) =>
      api.opened.tb.messages.append({ userId: 'local' }, id, [{ role: 'user', content: `${i}` }]),
    )
    expect(api.opened.tb.messages.queueStats().running).toBeGreaterThan(0)
    const busy = await read(api)
    await Promise.all(appends)
    const samples = await read(api)
    for (const [name, low] of [
      ['threadbase_database_connections_open', 1],
      ['threadbase_database_connections_idle', engine.name === 'postgres' ? 1 : 0],
      ['threadbase_database_connections_waiting', 0],
      ['threadbase_append_queue_waiting', 0],
      ['threadbase_append_queue_running', 0],
      ['threadbase_streams_open', 0],
      ['process_resident_memory_bytes', 10_000_000],
      ['nodejs_heap_size_used_bytes', 1_000_000],
      ['process_cpu_seconds_total', 0.01],
      ['nodejs_eventloop_lag_p99_seconds', 0],
      ['process_start_time_seconds', 1_600_000_000],
    ] as const)
      expect(sampleOf(samples, name), name).toBeGreaterThanOrEqual(low)
    expect(sampleOf(busy, 'threadbase_append_queue_running')).toBeGreaterThanOrEqual(0)
    expect(sampleOf(samples, 'threadbase_append_queue_running')).toBe(0)
  })
})

test('two apps in one process count apart, and show the figures of their cache', async () => {
  const [engine] = engines as [Engine]
  const [one, two] = await Promise.all([openApi(engine), openApi(engine)])
  try {
    const { cache } = one.opened.tb
    await cache.set('there', '1', { ttlMs: 60_000 })
    for (const key of ['there', 'there', 'not there']) await cache.get(key)
    await one.call('GET', '/health')
    const health = { route: '/health' }
    const samples = await read(one)
    expect(sampleOf(samples, COUNT, health)).toBe(1)
    expect(sampleOf(await read(two), COUNT, health)).toBeUndefined()
    for (let i = 0; i < 2; i++)
      expect(
        ['hit', 'miss', 'error'].map((result) =>
          sampleOf(samples, 'threadbase_cache_requests_total', { result }),
        ),
      ).toEqual([2, 1, 0])
  } finally {
    for (const api of [one, two]) {
      await api.app.close()
      await api.opened.close()
    }
  }
})
