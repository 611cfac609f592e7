import { connect } from 'node:net'
import { CompiledQuery } from 'kysely'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { engines, postgresUrl } from '../../test/harness.ts'
import { type Api, describeApi, expectErrorShape, openApi, refusal } from '../../test/http.ts'
import { startTcpProxy, type TcpProxy } from '../../test/tcp-proxy.ts'
import { VERSION } from '../version.ts'

describeApi('the app', (api, engine) => {
  test('/health says that the process is up, /ready that the database is migrated', async () => {
    const health = await api.call('GET', '/health')
    expect(health).toMatchObject({ status: 200, body: { status: 'ok', version: VERSION } })
    expect(health.body.uptime_s).toBeGreaterThanOrEqual(0)
    const ready = await api.call('GET', '/ready')
    expect(ready.status).toBe(200)
    expect(ready.body).toEqual({
      status: 'ready',
      store: engine.name,
      revision: expect.stringMatching(/^\d{4,}$/),
    })
  })

  test('every answer has a request id: the given one, or a new one if it is missing or bad', async () => {
    const idOf = async (given?: string, url = '/health') =>
      (await api.call('GET', url, undefined, given === undefined ? {} : { 'x-request-id': given })).headers[
        'x-request-id'
      ]
    for (const given of ['abc', 'a:b.c_d-1', 'x'.repeat(100)]) {
      expect(await idOf(given)).toBe(given)
      for (const url of [
        '/nope',
        '/api/threads/x',
        '/api/threads/%zz',
        '/docs/static/index.css',
        '/openapi.json',
      ])
        expect(await idOf(given, url), url).toBe(given)
    }
    const made = [
      await idOf(),
      await idOf(),
      await idOf('with space'),
      await idOf('x'.repeat(101)),
      await idOf('é'),
      await idOf(''),
    ]
    expect(new Set(made).size).toBe(made.length)
    for (const id of made) expect(id).toMatch(/^[0-9a-f-]{36}$/)
  })

  test('requests that name another host or come from a page of another origin are refused', async () => {
    const status = async (headers: Record<string, string>, method = 'GET', url = '/api/threads') =>
      (await api.call(method, url, undefined, headers)).status
    for (const host of [
      'evil.example',
      '127.0.0.1.evil.example',
      'localhost.evil.example:4100',
      '10.0.0.1',
      'x@localhost',
      '0.0.0.0:4100',
    ])
      for (const url of ['/api/threads', '/health', '/docs', '/openapi.json', '/nope'])
        expect(await status({ host }, 'GET', url), `${host} ${url}`).toBe(403)
    for (const host of ['localhost', 'LOCALHOST:4100', '127.0.0.1:4100', '127.1.2.3', '[::1]:4100', '[::1]'])
      expect(await status({ host }), host).toBe(200)
    for (const origin of ['https://evil.example', 'null', 'http://localhost.evil.example', 'file://', 'x'])
      for (const method of ['GET', 'POST']) expect(await status({ origin }, method), origin).toBe(403)
    for (const origin of ['http://localhost:4100', 'http://127.0.0.1:5173', 'http://[::1]:4100'])
      expect(await status({ origin }), origin).toBe(200)
    const refused = await api.call('GET', '/api/threads', undefined, { host: 'evil.example' })
    expect(refusal(refused)).toMatchObject({ status: 403, code: 'forbidden' })
  })

  test('what no route answers is 404 and says what was asked', async () => {
    for (const [method, url] of [
      ['GET', '/'],
      ['GET', '/nope?a=b'],
      ['PUT', '/api/threads'],
      ['OPTIONS', '/api/threads'],
      ['POST', '/health'],
      ['GET', '/api/threads/'.concat('a/b/c/d')],
    ] as const) {
      const answer = await api.call(method, url)
      expect(refusal(answer)).toEqual({
        status: 404,
        code: 'not_found',
        message: `there is no ${method} ${url.split('?')[0]}; see /docs`,
      })
    }
  })

  test('HEAD answers as GET without a body', async () => {
    const head = await api.call('HEAD', '/api/threads')
    expect([head.status, head.text]).toEqual([200, ''])
    expect((await api.call('HEAD', '/nope')).status).toBe(404)
    expect((await api.call('HEAD', '/api/threads?limit=0')).status).toBe(400)
  })

  test('an unexpected exception is 500 `internal`, tells nothing, and is logged with its request', async () => {
    const { db, schema } = api.opened.database
    const run = (text: string) => db.executeQuery(CompiledQuery.raw(text))
    await run(`create function ${schema}.fail() returns trigger language plpgsql as
      $$ begin raise exception 'secret of row %', new.title; end $$`)
    await run(
      `create trigger fail before insert on ${schema}.threads for each row execute function ${schema}.fail()`,
    )
    try {
      const answer = await api.call(
        'POST',
        '/api/threads',
        { title: 'private' },
        { 'x-request-id': 'find-me' },
      )
      expect(answer.status).toBe(500)
      expect(answer.body).toEqual({
        error: { code: 'internal', message: 'internal error', request_id: 'find-me' },
      })
      const entry = api.logged.find(({ level, reqId }) => level === 50 && reqId === 'find-me')
      expect(entry).toMatchObject({
        msg: 'request failed',
        route: '/api/threads',
        err: { message: 'secret of row private' },
      })
      expect(entry.err.stack).toContain('secret of row')
    } finally {
      await run(`drop trigger fail on ${schema}.threads; drop function ${schema}.fail()`)
    }
    expect((await api.call('POST', '/api/threads', { title: 'works again' })).status).toBe(201)
  })

  test('what is not HTTP is answered in the shape of errors and the connection closed', async () => {
    await api.app.listen({ host: '127.0.0.1', port: 0 })
    const address = api.app.server.address()
    const port = typeof address === 'object' ? (address?.port ?? 0) : 0
    const answers = {
      garbage: await talk(port, 'garbage\r\n\r\n'),
      header: await talk(port, `GET /health HTTP/1.1\r\nhost: localhost\r\nx: ${'y'.repeat(40_000)}\r\n\r\n`),
      length: await talk(port, 'POST /api/threads HTTP/1.1\r\nhost: localhost\r\ncontent-length: -1\r\n\r\n'),
    }
    expect([answers.garbage.status, answers.header.status, answers.length.status]).toEqual([400, 431, 400])
    expect(answers.header.body.error.code).toBe('too_large')
    for (const { body } of Object.values(answers)) {
      expectErrorShape({
        body,
        headers: { 'content-type': 'application/json', 'x-request-id': body.error.request_id },
      })
    }
  })
})

describe.each(engines)('a database that is away: $name', (engine) => {
  let api: Api
  let proxy: TcpProxy | undefined
  beforeAll(async () => {
    if (!engine.available) return
    if (engine.name === 'postgres') {
      const { hostname, port } = new URL(String(postgresUrl))
      proxy = await startTcpProxy({ host: hostname, port: Number(port || 5432) })
      const url = new URL(String(postgresUrl))
      url.host = `127.0.0.1:${proxy.port}`
      api = await openApi(engine, { url: url.href, acquireTimeoutS: 2 })
    } else {
      api = await openApi(engine)
    }
  })
  afterAll(async () => {
    proxy?.restore()
    await api?.app.close()
    await api?.opened.close()
    await proxy?.close()
  })

  test.skipIf(!engine.available)(
    'is 503 with when to come back and no word about it; later calls work',
    async () => {
      const id = await api.newThread()
      if (proxy !== undefined) proxy.cut()
      else await api.opened.database.close()
      for (const [method, url, body] of [
        ['GET', '/ready'],
        ['GET', '/api/threads'],
        ['GET', `/api/threads/${id}`],
        ['POST', '/api/threads', { title: 'x' }],
        ['POST', `/api/threads/${id}/messages`, { role: 'user', content: 'x' }],
        ['DELETE', `/api/threads/${id}/messages/${id}`],
        ['PUT', `/api/threads/${id}/config`, {}],
      ] as const) {
        const answer = await api.call(method, url, body)
        expect(refusal(answer), `${method} ${url}`).toMatchObject({ status: 503, code: 'unavailable' })
        expect(answer.headers['retry-after']).toMatch(/^\d+$/)
        expect(answer.text).not.toMatch(/127\.0\.0\.1|ECONN|postgres|select|at .*\.ts/i)
        expect(
          api.logged.some(({ level, reqId }) => level === 40 && reqId === answer.body.error.request_id),
        ).toBe(true)
      }
      // the process itself is well
      expect((await api.call('GET', '/health')).status).toBe(200)
      if (proxy === undefined) return
      proxy.restore()
      expect((await api.call('GET', '/ready')).status).toBe(200)
      expect((await api.call('GET', `/api/threads/${id}`)).status).toBe(200)
    },
  )

  test.skipIf(!engine.available)(
    'a database that is not migrated is not ready and says what to do',
    async () => {
      const empty = await openApi(engine, { migrations: [] })
      try {
        const ready = await empty.call('GET', '/ready')
        expect(refusal(ready)).toMatchObject({ status: 503, code: 'unavailable' })
        expect(ready.body.error.message).toContain('threadbase db upgrade')
        expect(refusal(await empty.call('GET', '/api/threads'))).toMatchObject({
          status: 503,
          message: expect.stringContaining('threadbase db upgrade'),
        })
      } finally {
        await empty.app.close()
        await empty.opened.close()
      }
    },
  )
})

/** Sends bytes and reads the one answer that comes before the server closes the connection. */
function talk(
  port: number,
  bytes: string,
): Promise<{ status: number; body: { error: { code: string; request_id: string } } }> {
  return new Promise((resolve, reject) => {
    let text = ''
    const socket = connect(port, '127.0.0.1', () => socket.write(bytes))
    socket.setEncoding('utf8')
    socket.on('data', (chunk) => {
      text += chunk
    })
    socket.on('error', reject)
    socket.on('close', () => {
      const [head = '', body = ''] = text.split('\r\n\r\n')
      resolve({ status: Number(head.split(' ')[1]), body: JSON.parse(body) })
    })
  })
}
