import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import pg from 'pg'
import { describe, expect, test } from 'vitest'
import { VERSION } from '../../src/version.ts'
import { newSchemaName, postgresUrl } from '../harness.ts'
import type { Json } from '../http.ts'
import { availableStores, cleanUpAfterAll, type Environment, run, serve, start, stop } from './processes.ts'

const json = { 'content-type': 'application/json' }

cleanUpAfterAll()

describe.each(availableStores)('serve on $name', ({ name, newEnv }) => {
  test('starts from nothing, says what it uses, answers, and stops with code 0', async () => {
    const env = await newEnv()
    const server = await serve(env)
    const banner = server.stdout()
    expect(banner).toContain(`Threadbase ${VERSION} is listening on ${server.url}\n`)
    const store =
      name === 'embedded' ? `embedded PostgreSQL (PGlite) in ${env.DATA_DIR}` : /PostgreSQL at [\w.]+:\d+/
    expect(/^ +store +(.*)$/m.exec(banner)?.[1]).toMatch(store)
    expect(banner).toMatch(/^ +bytes +\S/m)
    expect(banner).toMatch(/^ +cache +\S/m)
    expect(banner).toContain(`docs    ${server.url}/docs`)
    for (const [, url] of banner.matchAll(/(http:\/\/[^\s)]+(?:docs|openapi\.json))/g))
      expect((await fetch(String(url))).status, url).toBe(200)

    const curl = String(/^ +(curl .*)$/m.exec(banner)?.[1])
    const { stdout } = await promisify(execFile)('sh', ['-c', curl])
    expect(JSON.parse(stdout)).toMatchObject({ title: 'Hello', kind: 'chat', user_id: 'local' })

    expect(await stop(server)).toEqual({ code: 0, signal: null })
    await expect(fetch(`${server.url}/health`)).rejects.toThrow()
    if (env.DATA_DIR !== undefined) expect(existsSync(join(env.DATA_DIR, 'lock'))).toBe(false)

    const again = await serve(env)
    const { items } = await getJson(`${again.url}/api/threads`)
    expect(items).toMatchObject([{ title: 'Hello' }])
    expect(await stop(again)).toMatchObject({ code: 0 })
  })

  test('SIGTERM lets a request in flight finish and takes no new one; its rows are there after', async () => {
    // when the request is done there is nothing to wait for, however long it may take
    const env: Environment = { ...(await newEnv()), SHUTDOWN_TIMEOUT_S: '600' }
    const server = await serve(env)
    const thread = await slowPost(server.url)
    server.kill('SIGTERM')
    await untilRefused(server.url)
    const answer = await thread.finish()
    expect(answer.status).toBe(201)
    expect(await server.exited).toEqual({ code: 0, signal: null })

    const again = await serve(env)
    expect((await fetch(`${again.url}/api/threads/${answer.body.id}`)).status).toBe(200)
    await stop(again)
  })

  test('kill -9 while appending: every acknowledged message is there, once', async () => {
    const env = await newEnv()
    const server = await serve(env)
    const { id } = await getJson(`${server.url}/api/threads`, { method: 'POST' })
    const acknowledged: number[] = []
    const append = async (n: number) => {
      const body = JSON.stringify({ message_id: `m${n}`, role: 'user', content: n })
      const answer = await fetch(`${server.url}/api/threads/${id}/messages`, {
        method: 'POST',
        headers: json,
        body,
      })
      if (answer.status === 201) acknowledged.push(n)
    }
    let next = 0
    const writer = async () => {
      for (;;) await append(next++)
    }
    const writers = Array.from({ length: 8 }, () => writer().catch(() => {}))
    while (acknowledged.length < 120) await new Promise((resolve) => setTimeout(resolve, 5))
    server.kill('SIGKILL')
    await Promise.all(writers)
    expect(await server.exited).toEqual({ code: null, signal: 'SIGKILL' })

    const again = await serve(env)
    const found: { seq: number; message_id: string; content: number }[] = []
    let cursor: string | null = ''
    while (cursor !== null) {
      const query: string = `limit=200${cursor === '' ? '' : `&cursor=${cursor}`}`
      const page = await getJson(`${again.url}/api/threads/${id}/messages?${query}`)
      found.push(...page.items)
      cursor = page.next_cursor
    }
    expect(found.map(({ seq }) => seq)).toEqual(found.map((_, i) => i + 1))
    const ids = found.map(({ message_id }) => message_id)
    expect(new Set(ids).size).toBe(ids.length)
    expect(ids).toEqual(expect.arrayContaining(acknowledged.map((n) => `m${n}`)))
    for (const { message_id, content } of found) expect(message_id).toBe(`m${content}`)
    await stop(again)
  })
})

describe('shutting down while a request hangs', () => {
  // the same on every store
  const env = async () => ({ ...(await availableStores.at(-1)?.newEnv()) })

  test('SIGTERM waits for requests no longer than SHUTDOWN_TIMEOUT_S', async () => {
    const server = await serve({ ...(await env()), SHUTDOWN_TIMEOUT_S: '1' })
    const stuck = await slowPost(server.url)
    server.kill('SIGTERM')
    expect(await server.exited).toEqual({ code: 0, signal: null })
    await expect(stuck.finish()).rejects.toThrow()
  })

  test.skipIf(postgresUrl === null)(
    'SIGTERM does not wait for a statement that waits for a lock',
    async () => {
      const schema = newSchemaName()
      const variables = {
        DATABASE_URL: String(postgresUrl),
        DATABASE_SCHEMA: schema,
        SHUTDOWN_TIMEOUT_S: '2',
      }
      const server = await serve(variables)
      const { id } = await getJson(`${server.url}/api/threads`, { method: 'POST' })
      const other = new pg.Client({ connectionString: String(postgresUrl) })
      await other.connect()
      await other.query('begin')
      await other.query(`select 1 from ${schema}.threads where id = $1 for update`, [id])
      const url = `${server.url}/api/threads/${id}/messages`
      const body = JSON.stringify({ role: 'user', content: 'late' })
      const appends = Array.from({ length: 3 }, () =>
        expect(fetch(url, { method: 'POST', headers: json, body })).rejects.toThrow(),
      )
      const waiting = `select 1 from pg_stat_activity where wait_event_type = 'Lock' and query like '%${schema}%'`
      while ((await other.query(waiting)).rowCount === 0)
        await new Promise((resolve) => setTimeout(resolve, 20))
      const started = Date.now()
      server.kill('SIGTERM')
      expect(await server.exited).toEqual({ code: 0, signal: null })
      expect(Date.now() - started).toBeLessThan(10_000)
      await Promise.all(appends)
      await other.end()
    },
  )

  test.each([
    ['SIGTERM', 'SIGTERM'],
    ['SIGTERM', 'SIGINT'],
    ['SIGINT', 'SIGTERM'],
  ] as const)('after %s a second signal (%s) ends it at once', async (first, second) => {
    const server = await serve({ ...(await env()), SHUTDOWN_TIMEOUT_S: '600' })
    const stuck = await slowPost(server.url)
    server.kill(first)
    await untilRefused(server.url)
    server.kill(second)
    expect(await server.exited).toEqual({ code: 1, signal: null })
    await expect(stuck.finish()).rejects.toThrow()
  })
})

test.skipIf(postgresUrl === null)(
  'ten processes that start at once on an empty database migrate it once, and all work',
  async () => {
    const env = { DATABASE_URL: String(postgresUrl), DATABASE_SCHEMA: newSchemaName(), LOG_LEVEL: 'info' }
    const upgrades = Array.from({ length: 5 }, () => start(['db', 'upgrade'], env))
    const servers = await Promise.all(Array.from({ length: 5 }, () => serve(env)))
    for (const upgrade of upgrades) expect(await upgrade.exited).toEqual({ code: 0, signal: null })
    const steps = [
      ...upgrades.flatMap((child) => child.stdout().match(/^upgrade +(\d+)/gm) ?? []),
      ...servers.flatMap((child) => child.stderr().match(/"revision":"(\d+)".*"migrated"/g) ?? []),
    ].map((line) => /\d{4,}/.exec(line)?.[0])
    expect(steps.length).toBeGreaterThan(0)
    expect(new Set(steps).size).toBe(steps.length)
    for (const server of servers) {
      expect((await fetch(`${server.url}/ready`)).status).toBe(200)
      expect((await fetch(`${server.url}/api/threads`, { method: 'POST' })).status).toBe(201)
    }
    const { items } = await getJson(`${servers[0]?.url}/api/threads`)
    expect(items).toHaveLength(5)
    for (const server of servers) expect(await stop(server)).toMatchObject({ code: 0 })
    expect((await run(['db', 'check'], env)).stdout).toBe('no differences\n')
  },
)

/** A POST that the server has begun to read and that ends when the test says so. */
async function slowPost(url: string) {
  let finishBody = () => {}
  const more = new Promise<void>((resolve) => {
    finishBody = resolve
  })
  const bytes = new TextEncoder()
  async function* body() {
    yield bytes.encode('{"title":')
    await more
    yield bytes.encode('"slow"}')
  }
  const answer = fetch(`${url}/api/threads`, {
    method: 'POST',
    headers: json,
    body: ReadableStream.from(body()),
    duplex: 'half',
  } as RequestInit)
  answer.catch(() => {})
  // its connection was made before this one, so the server has seen it when it answers this one
  for (let i = 0; i < 3; i++) await fetch(`${url}/health`)
  return {
    finish: async () => {
      finishBody()
      const { status, ...rest } = await answer.then(async (got) => ({
        status: got.status,
        body: await got.json(),
      }))
      return { status, body: rest.body as { id: string } }
    },
  }
}

async function getJson(url: string, init?: RequestInit): Promise<Json> {
  return (await fetch(url, init)).json()
}

async function untilRefused(url: string): Promise<void> {
  for (let i = 0; i < 1_000; i++) {
    const refused = await fetch(`${url}/health`, { headers: { connection: 'close' } }).then(
      () => false,
      (error: { cause?: { code?: string } }) => error.cause?.code === 'ECONNREFUSED',
    )
    if (refused) return
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
  throw new Error('the server still takes connections')
}
