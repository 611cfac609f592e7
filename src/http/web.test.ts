import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type Engine, engines } from '../../test/harness.ts'
import { type Api, describeApi, expectErrorShape, openApi, refusal } from '../../test/http.ts'

const APP = 'https://app.example.com'
const DEV = 'http://localhost:5173'

/** The suites below are about HTTP alone: one engine is enough. */
const engine = engines[0] as Engine

function useApi(options: Parameters<typeof openApi>[1]): Api {
  const api = {} as Api
  beforeAll(async () => void Object.assign(api, await openApi(engine, options)))
  afterAll(async () => {
    await api.app?.close()
    await api.opened?.close()
  })
  return api
}

const corsHeaders = (headers: Record<string, string | undefined>) =>
  Object.keys(headers).filter((name) => name.startsWith('access-control-'))

describeApi('security headers', (api) => {
  test('every answer has them: found, refused, missing, unreadable', async () => {
    for (const [method, url, body] of [
      ['GET', '/api/threads'],
      ['POST', '/api/threads', {}],
      ['POST', '/api/threads', '{'],
      ['GET', '/api/threads/x'],
      ['GET', '/api/nope'],
      ['GET', '/api/threads/%zz'],
      ['GET', '/health'],
      ['GET', '/openapi.json'],
      ['OPTIONS', '/api/threads'],
    ] as const) {
      const { headers } = await api.call(method, url, body)
      expect(headers, `${method} ${url}`).toMatchObject({
        'content-security-policy': expect.stringContaining("default-src 'none'"),
        'x-content-type-options': 'nosniff',
        'x-frame-options': 'DENY',
        'referrer-policy': 'no-referrer',
        'cross-origin-resource-policy': 'same-origin',
      })
      expect(headers['content-security-policy']).toContain("frame-ancestors 'none'")
      expect(headers['cache-control'], url).toBe(url.startsWith('/api/') ? 'no-store' : undefined)
      expect(headers).not.toHaveProperty('strict-transport-security')
      expect(headers).not.toHaveProperty('x-powered-by')
      expect(corsHeaders(headers)).toEqual([])
    }
  })

  test('/docs keeps the policy that its page needs', async () => {
    for (const url of ['/docs', '/docs/static/swagger-ui.css']) {
      const { headers } = await api.call('GET', url)
      expect(headers['content-security-policy']).toContain("script-src 'self'")
      expect(headers['x-content-type-options']).toBe('nosniff')
    }
  })

  test('a page of another origin gets no CORS header, and no answer in single-user mode', async () => {
    const answer = await api.call('GET', '/api/threads', undefined, { origin: APP })
    expect(answer.status).toBe(403)
    expect(corsHeaders(answer.headers)).toEqual([])
    // nobody else says where a request came from
    const forwarded = { 'x-forwarded-proto': 'https', 'x-forwarded-for': '1.2.3.4' }
    const { headers } = await api.call('GET', '/health', undefined, forwarded)
    expect(headers).not.toHaveProperty('strict-transport-security')
  })
})

describe('CORS_ORIGINS', () => {
  const api = useApi({ corsOrigins: [APP, DEV] })

  test('pages of the list may call with credentials and read the answer', async () => {
    for (const origin of [APP, DEV])
      for (const [method, url] of [
        ['GET', '/api/threads'],
        ['POST', '/api/threads'],
        ['GET', '/api/threads/x'],
        ['GET', '/nope'],
      ] as const) {
        const { status, headers } = await api.call(method, url, undefined, { origin })
        expect(status, url).not.toBe(403)
        expect(headers).toMatchObject({
          'access-control-allow-origin': origin,
          'access-control-allow-credentials': 'true',
          'cross-origin-resource-policy': 'cross-origin',
        })
        expect(headers.vary).toMatch(/\borigin\b/i)
        const exposed = String(headers['access-control-expose-headers']).split(', ')
        expect(exposed).toEqual(
          expect.arrayContaining(['x-request-id', 'retry-after', 'location', 'ratelimit-remaining']),
        )
      }
  })

  test('a preflight is answered without credentials, before anything refuses it', async () => {
    const preflight = (origin: string, url = '/api/threads') =>
      api.call('OPTIONS', url, undefined, {
        origin,
        'access-control-request-method': 'PATCH',
        'access-control-request-headers': 'authorization,content-type',
      })
    const answer = await preflight(APP)
    expect([answer.status, answer.text]).toEqual([204, ''])
    expect(answer.headers['access-control-allow-origin']).toBe(APP)
    expect(answer.headers['access-control-allow-methods']).toContain('PATCH')
    expect(answer.headers['access-control-allow-headers']).toContain('authorization')
    expect(Number(answer.headers['access-control-max-age'])).toBeGreaterThan(0)
    for (const origin of [
      'https://evil.example',
      'null',
      `${APP}.evil.example`,
      'https://app.example.com:8443',
    ]) {
      const refused = await preflight(origin)
      expect(refusal(refused), origin).toMatchObject({ status: 403, code: 'forbidden' })
      expect(corsHeaders(refused.headers), origin).toEqual([])
      expect(refused.headers.vary).toMatch(/\borigin\b/i)
    }
  })

  test('any other origin gets no CORS header at all', async () => {
    for (const origin of [
      'https://evil.example',
      'null',
      'http://app.example.com',
      `${APP}/`,
      APP.toUpperCase(),
    ]) {
      const answer = await api.call('GET', '/api/threads', undefined, { origin })
      expect(answer.status, origin).toBe(403)
      expect(corsHeaders(answer.headers), origin).toEqual([])
      expect(answer.headers.vary, origin).toMatch(/\borigin\b/i)
    }
    const { status, headers } = await api.call('GET', '/api/threads')
    expect([status, corsHeaders(headers)]).toEqual([200, []])
    // a listed page cannot make the server answer under another name
    expect((await api.call('GET', '/health', undefined, { origin: APP, host: 'evil.example' })).status).toBe(
      403,
    )
  })

  test('an OPTIONS that is no preflight is refused in the shape of errors, or empty', async () => {
    const some: Record<string, string>[] = [
      {},
      { origin: APP },
      { origin: DEV, 'access-control-request-method': 'NOPE' },
    ]
    for (const headers of some) {
      const answer = await api.call('OPTIONS', '/api/threads', undefined, headers)
      if (answer.status !== 204) expectErrorShape(answer)
      else expect(answer.text).toBe('')
    }
  })
})

describe.each([
  ['one proxy', { hops: 1 }],
  ['its address', { addresses: ['127.0.0.1'] }],
  ['its network', { addresses: ['loopback', '10.0.0.0/8'] }],
] as const)('TRUST_PROXY: %s', (_name, trustProxy) => {
  const seen: { ip: string; protocol: string }[] = []
  const api = useApi({ trustProxy: trustProxy as { hops: number } | { addresses: string[] } })

  test("its word on address and protocol is taken, and nobody else's", async () => {
    api.app.addHook('onRequest', async ({ ip, protocol }) => void seen.push({ ip, protocol }))
    const { headers } = await api.call('GET', '/health', undefined, {
      'x-forwarded-proto': 'https',
      // the client claimed the first; the proxy saw the second
      'x-forwarded-for': '9.9.9.9, 203.0.113.7',
    })
    expect(headers['strict-transport-security']).toMatch(/^max-age=\d{8}/)
    expect(seen).toEqual([{ ip: '203.0.113.7', protocol: 'https' }])
    const plain = await api.call('GET', '/health', undefined, { 'x-forwarded-proto': 'http' })
    expect(plain.headers).not.toHaveProperty('strict-transport-security')
  })
})
