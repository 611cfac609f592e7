import { PassThrough } from 'node:stream'
import { CompiledQuery } from 'kysely'
import { describe, expect, test } from 'vitest'
import { availableStores, cleanUpAfterAll } from '../../test/e2e/processes.ts'
import type { Json } from '../../test/http.ts'
import { parseConfig } from '../config.ts'
import { ThreadbaseError } from '../core/errors.ts'
import { isSecretName, REDACTED } from '../core/redact.ts'
import { startServer } from '../server.ts'
import { createLog } from './log.ts'

cleanUpAfterAll()

function recorded(level = 'trace') {
  const stream = new PassThrough()
  let text = ''
  stream.setEncoding('utf8').on('data', (chunk) => {
    text += chunk
  })
  const lines = (): Json[] =>
    text
      .split('\n')
      .slice(0, -1)
      .map((line) => JSON.parse(line))
  return { log: createLog(level, stream), text: () => text, lines }
}

/** As the driver of PostgreSQL makes them. */
function databaseError(code: string, message: string) {
  return Object.assign(new Error(message), {
    code,
    severity: 'ERROR',
    detail: 'Key (title)=(hunter2) already exists.',
    where: 'PL/pgSQL function f(hunter2)',
    internalQuery: "select 'hunter2'",
    parameters: ['hunter2'],
    dataType: 'hunter2',
    table: 'threads',
  })
}

describe('a log line', () => {
  test.each([
    'authorization',
    'Authorization',
    'proxy-authorization',
    'cookie',
    'set-cookie',
    'x-api-key',
    'x-proxy-secret',
    'password',
    'newPassword',
    'password_hash',
    'token',
    'accessToken',
    'refresh_token',
    'id_token',
    'csrfToken',
    'key',
    'api_key',
    'apiKeys',
    'clientSecret',
    'secretAccessKey',
    'AWS_SECRET_ACCESS_KEY',
    'DATABASE_URL',
    'encryptionKeys',
    'ENCRYPTION_KEY',
    'content',
    'body',
    'tool_input',
  ])('never holds what is called %s, however deep', (name) => {
    expect(isSecretName(name)).toBe(true)
    const { log, text, lines } = recorded()
    const facts = { [name]: 'hunter2' }
    log.info(facts, 'x')
    log.warn({ a: { b: [{ c: facts }] } }, 'x')
    log.child(facts).error({ nested: { [name]: { deeper: ['hunter2'] } } }, 'x')
    expect(text()).not.toContain('hunter2')
    expect(lines()[0][name]).toBe(REDACTED)
    expect(lines()[1].a.b[0].c[name]).toBe(REDACTED)
    expect(facts[name]).toBe('hunter2')
  })

  test('keeps what is no secret', () => {
    const { log, lines } = recorded()
    const facts = { query: 'messages.list', ms: 5, route: '/x', keyId: 'k1', at: new Date(0), tokens: null }
    log.info(facts, 'slow')
    const { level: _level, time: _time, ...rest } = lines()[0]
    expect(rest).toEqual({ ...facts, at: '1970-01-01T00:00:00.000Z', msg: 'slow' })
  })

  test('of an error has its kind, place and causes, and no row', () => {
    const { log, text, lines } = recorded()
    const cause = databaseError('23505', 'duplicate key value violates unique constraint "threads_pkey"')
    const error = new ThreadbaseError('unavailable', 'no', { title: 'hunter2' }, { cause })
    log.error({ err: error }, 'failed')
    log.error({ err: databaseError('22P02', 'invalid input syntax for type uuid: "hunter2"') }, 'failed')
    log.error(databaseError('22P02', 'invalid input syntax for type uuid: "hunter2"'))
    log.error({ err: new AggregateError([cause], 'all failed') }, 'failed')
    log.error({ err: 'text' }, 'failed')
    const circular: Json = { a: {} }
    circular.a.b = circular
    log.error(circular, 'circular')
    const [first, second, , aggregate] = lines()
    expect(first.err).toMatchObject({
      type: 'ThreadbaseError',
      code: 'unavailable',
      message: 'no',
      stack: expect.stringMatching(/^ThreadbaseError: no\n {4}at /),
      cause: { code: '23505', message: expect.stringContaining('threads_pkey'), stack: expect.any(String) },
    })
    expect(second.err).toMatchObject({ code: '22P02', message: REDACTED })
    expect(aggregate.err.errors).toHaveLength(1)
    expect(text()).not.toContain('hunter2')
  })
})

describe.each(availableStores)('a server on $name at LOG_LEVEL=trace', ({ newEnv }) => {
  test('logs no password, token, key or content of requests that succeed or fail', async () => {
    const env = await newEnv()
    const { log, text, lines } = recorded('trace')
    const server = await startServer(parseConfig({ ...env, PORT: '0', BODY_LIMIT_MB: '0.01' }), log)
    const { url, threadbase } = server
    const { db, schema } = threadbase.database
    const sql = (statement: string) => db.executeQuery(CompiledQuery.raw(statement))
    const headers = {
      'content-type': 'application/json',
      authorization: 'Bearer hunter2-token',
      'x-api-key': 'tb_hunter2-key',
      cookie: 'session=hunter2-cookie',
      'x-request-id': 'find-me',
    }
    const call = async (method: string, path: string, body?: object | string) => {
      const text = typeof body === 'string' ? body : JSON.stringify(body)
      return (await fetch(`${url}${path}`, { method, headers, body: text })).status
    }
    try {
      const created = await fetch(`${url}/api/threads`, {
        method: 'POST',
        headers,
        body: JSON.stringify({ title: 'hunter2-title', meta: { password: 'hunter2-password' } }),
      })
      const { id } = (await created.json()) as { id: string }
      const message = { role: 'user', content: 'hunter2-content', message_id: 'm' }
      const statuses = [
        await call('POST', `/api/threads/${id}/messages`, message),
        await call('POST', `/api/threads/${id}/messages`, { ...message, content: 'hunter2-other' }),
        await call('POST', '/api/threads', '{"title": "hunter2-broken'),
        await call('POST', '/api/threads', { title: 'hunter2-long'.repeat(2_000) }),
        await call('POST', '/api/threads', { hunter2: 'hunter2-unknown' }),
        await call('GET', '/api/threads?cursor=hunter2-cursor'),
        await call('GET', '/api/nope?token=hunter2-query'),
        await call('GET', '/api/threads/hunter2-path'),
        await call('GET', '/api/threads/%zzhunter2'),
      ]
      expect(statuses).toEqual([201, 409, 400, 413, 400, 400, 404, 400, 400])

      await sql(`create function ${schema}.fail() returns trigger language plpgsql as
        $$ begin raise exception using errcode = '23505', message = 'duplicate key', detail = new.title; end $$`)
      await sql(
        `create trigger fail before insert on ${schema}.threads for each row execute function ${schema}.fail()`,
      )
      expect(await call('POST', '/api/threads', { title: 'hunter2-detail' })).toBe(500)
      expect(await call('GET', '/api/export')).toBe(200)
    } finally {
      await server.close()
    }
    expect(text()).not.toMatch(/hunter2/)
    const requests = lines().filter(({ msg }) => msg === 'request')
    expect(requests.length).toBeGreaterThan(9)
    expect(requests[0]).toMatchObject({
      reqId: 'find-me',
      method: 'POST',
      route: '/api/threads',
      status: 201,
      ms: expect.any(Number),
    })
    expect(lines().filter(({ level }) => level === 50)).toMatchObject([
      { msg: 'request failed', reqId: 'find-me', err: { code: '23505', message: 'duplicate key' } },
    ])
  })
})
