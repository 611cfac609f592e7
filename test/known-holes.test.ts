import { randomUUID } from 'node:crypto'
import type { AddressInfo } from 'node:net'
import { sql } from 'kysely'
import { beforeAll, describe, expect, test } from 'vitest'
import { parseConfig } from '../src/config.ts'
import { ACCOUNTS, type Account, everythingOf, newAccount } from './accounts.ts'
import { TEST_AUTH } from './harness.ts'
import { type Api, describeApi, type Json, refusal } from './http.ts'
import { dial } from './raw-http.ts'
import { callRoute, newTarget, operationsOf, protectedNames, routeOf, type Target } from './routes.ts'

describeApi(
  'holes that others shipped',
  (api) => {
    let target: Target
    let other: Account
    beforeAll(async () => {
      target = await newTarget(api)
      other = await newAccount(api.opened.tb)
    })

    test('listing without a credential', async () => {
      for (const name of protectedNames.filter((name) => name.startsWith('GET'))) {
        const answer = await callRoute(api, name, target)
        expect(refusal(answer), name).toMatchObject({ status: 401, code: 'unauthorized' })
        expect(answer.text).not.toContain(target.rows.thread)
      }
    })

    test('rows of others by their UUID', async () => {
      const before = await everythingOf(api.opened, target.account.id)
      for (const name of protectedNames.filter(
        (name) => name.includes('{id}') && !name.includes('/admin/') && routeOf(name).access !== 'ingest',
      )) {
        const answer = await callRoute(api, name, target, other.headers)
        expect(name.startsWith('DELETE') ? 204 : 404, name).toBe(answer.status)
      }
      // a row that is there and one that is not cannot be told apart
      const about = async (id: string) => {
        const { status, body } = await api.call('GET', `/api/threads/${id}`, undefined, other.headers)
        return [status, JSON.stringify({ ...body.error, request_id: '' }).replaceAll(id, 'ID')]
      }
      expect(await about(target.rows.thread)).toEqual(await about(randomUUID()))
      expect(await everythingOf(api.opened, target.account.id)).toEqual(before)
    })

    describe('code in what is sent', () => {
      const CODE = [
        '__proto__',
        'constructor',
        '{{constructor.constructor("return process")().exit()}}',
        // biome-ignore lint/suspicious/noTemplateCurlyInString: it is the attack
        '${process.exit(1)}',
        '<%= process.exit(1) %>',
        "require('child_process').execSync('touch /tmp/owned')",
        'def f(x=__import__("os").system("id")): pass',
        "'; drop table threads; --",
        "' or 1=1 --",
        '$1',
        '$(id)',
        '../../etc/passwd',
      ]

      test('is kept as data', async () => {
        for (const code of CODE) {
          const { headers } = other
          const title = await api.call(
            'POST',
            '/api/threads',
            { title: code, meta: { [code]: code } },
            headers,
          )
          expect(title.status, code).toBe(201)
          const url = `/api/threads/${title.body.id}`
          const message = `{"role":"user","content":{"__proto__":{"admin":true},"x":${JSON.stringify(code)}},"tool_input":${JSON.stringify([code])}}`
          const stored = await api.call('POST', `${url}/messages`, message, headers)
          const found = await api.call('GET', `${url}/messages/${stored.body.id}`, undefined, headers)
          expect(found.text).toContain('"__proto__":{"admin":true}')
          expect(found.body.tool_input).toEqual([code])
          expect((await api.call('GET', url, undefined, headers)).body.title).toBe(code)
          const search = await api.call(
            'GET',
            `/api/threads?q=${encodeURIComponent(code)}`,
            undefined,
            headers,
          )
          expect(search.body.items.map(({ title: named }: Json) => named)).toContain(code)
        }
        expect(({} as Json).admin).toBeUndefined()
        expect((await everythingOf(api.opened, target.account.id)).threads.length).toBeGreaterThan(0)
      })

      test('as a field is refused, wherever fields are ours', async () => {
        const url = `/api/threads/${target.rows.thread}`
        const { headers } = target.account
        for (const [method, path, body] of [
          ['POST', '/api/threads', '{"__proto__":{"user_id":"x"}}'],
          ['POST', '/api/threads', '{"constructor":{"prototype":{"x":1}}}'],
          ['PATCH', url, '{"title":"x","__proto__":{"is_superuser":true}}'],
          ['PATCH', '/api/me', '{"name":"x","is_superuser":true}'],
          ['PATCH', '/api/me', '{"name":"x","__proto__":{"is_superuser":true}}'],
          ['POST', '/api/register', '{"username":"x1","password":"long enough","is_superuser":true}'],
          ['POST', '/api/api-keys', '{"name":"x","user_id":"somebody"}'],
          ['POST', '/api/threads', `{"user_id":"${other.id}"}`],
          ['GET', '/api/threads?__proto__=1', undefined],
          ['GET', `/api/threads?user_id=${other.id}`, undefined],
        ] as const)
          expect(refusal(await api.call(method, path, body, headers)), `${path} ${body}`).toMatchObject({
            status: 400,
          })
        expect((await api.call('GET', '/api/me', undefined, headers)).body.is_superuser).toBe(false)
      })

      test('has no route that would run it', async () => {
        const document = (await api.call('GET', '/openapi.json')).body
        for (const name of operationsOf(document).keys())
          expect(name).not.toMatch(/validate|eval|exec|run|custom|component|code/i)
        for (const path of ['/api/v1/validate/code', '/api/validate', '/api/v1/auto_login', '/api/v1/users/'])
          for (const method of ['GET', 'POST']) expect((await api.call(method, path, {})).status).toBe(404)
      })
    })

    test('paths in names', async () => {
      const { headers } = target.account
      const UPS = [
        '../../etc/passwd',
        '..%2f..%2fetc%2fpasswd',
        '%2e%2e/%2e%2e/etc/passwd',
        '..%5c..%5cx',
        '%00',
        '....//x',
      ]
      for (const up of UPS) {
        for (const url of [
          `/docs/static/${up}`,
          `/docs/${up}`,
          `/docs/static/..%2f..%2f..%2fpackage.json`,
          `/api/threads/${up}`,
          `/api/threads/${target.rows.thread}/messages/${up}`,
          `/api/export?thread_id=${up}`,
        ]) {
          const answer = await api.call('GET', url, undefined, headers)
          expect([400, 404], url).toContain(answer.status)
          expect(answer.text, url).not.toMatch(/root:|"dependencies"/)
        }
      }
      // a name of a file is made of a UUID that was checked, never of what a user wrote
      await api.call(
        'PATCH',
        `/api/threads/${target.rows.thread}`,
        { title: '../x"\r\nset-cookie: a=b' },
        headers,
      )
      const id = target.rows.thread
      const file = await api.call(
        'GET',
        `/api/export?thread_id=${id.toUpperCase()}&format=markdown`,
        undefined,
        headers,
      )
      expect(file.headers['content-disposition']).toBe(`attachment; filename="thread-${id}.md"`)
      expect(file.headers['set-cookie']).toBeUndefined()
      // what is no path for us is none for the admin routes either
      const chief = await newAccount(api.opened.tb, { isSuperuser: true })
      for (const user of ['..', '%2e%2e', '../../api-keys', target.account.id.slice(0, -1)])
        expect([200, 400, 404]).toContain(
          (await api.call('GET', `/api/admin/users/${user}/threads`, undefined, chief.headers)).status,
        )
    })

    test('uploads of anybody: they are refused before their body is read', async () => {
      await api.app.listen({ host: '127.0.0.1', port: 0 })
      const { port } = api.app.server.address() as AddressInfo
      const head = (path: string, more = '') =>
        `POST ${path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 900000\r\n${more}\r\n`
      for (const [path, more] of [
        ['/api/threads', ''],
        [`/api/threads/${target.rows.thread}/messages`, ''],
        ['/api/api-keys', 'authorization: Bearer garbage\r\n'],
        ['/api/admin/users', `x-api-key: tb_${'A'.repeat(43)}\r\n`],
      ]) {
        const client = dial(port)
        // not one byte of the body
        client.socket.write(head(String(path), more))
        await client.until('"request_id"')
        expect(client.text(), path).toMatch(/^HTTP\/1\.1 401 /)
        client.socket.destroy()
      }
      // the same for whoever has no business with the route
      const outsider = dial(port)
      outsider.socket.write(head('/api/admin/users', `authorization: ${other.headers.authorization}\r\n`))
      await outsider.until('"request_id"')
      expect(outsider.text()).toMatch(/^HTTP\/1\.1 403 /)
      outsider.socket.destroy()
    })

    test('what anybody may send is small', async () => {
      for (const path of ['/api/login', '/api/refresh', '/api/logout', '/api/register']) {
        const answer = await api.call('POST', path, `{"username":"${'x'.repeat(200_000)}"}`)
        expect(refusal(answer), path).toMatchObject({ status: 413, code: 'too_large' })
      }
    })
  },
  { auth: ACCOUNTS },
)

describeApi('auto-login', (api) => {
  test('single-user mode hands out nothing, and answers to this machine alone', async () => {
    for (const [path, body] of [
      ['/api/login', { username: 'local', password: 'x' }],
      ['/api/login', { username: 'admin', password: 'admin' }],
      ['/api/refresh', {}],
      ['/api/register', { username: 'anna', password: 'long enough' }],
      ['/api/api-keys', { name: 'x' }],
    ] as const) {
      const answer = await api.call('POST', path, body)
      expect(refusal(answer), path).toMatchObject({ status: 404 })
      expect(answer.headers['set-cookie']).toBeUndefined()
    }
    const me = await api.call('GET', '/api/me')
    expect(me.body).toEqual({ user_id: 'local', via: 'single-user', is_superuser: false, user: null })
    expect((await api.call('GET', '/api/admin/users')).status).toBe(403)
    for (const host of [
      'example.com',
      'localhost.evil.example',
      '127.0.0.1.evil.example',
      '0.0.0.0',
      '192.168.0.1',
      'localhost@evil',
    ])
      expect((await api.call('GET', '/api/threads', undefined, { host })).status, host).toBe(403)
    const forwarded = { host: 'evil.example', 'x-forwarded-host': 'localhost', forwarded: 'host=localhost' }
    expect((await api.call('GET', '/api/threads', undefined, forwarded)).status).toBe(403)
  })

  test('lifetimes of tokens have bounds', () => {
    for (const name of ['ACCESS_TOKEN_TTL_S', 'REFRESH_TOKEN_TTL_S'])
      for (const value of ['0', '-1', '315360000', 'never'])
        expect(() => parseConfig({ [name]: value }), `${name}=${value}`).toThrow(name)
    const { accessTtlS, refreshTtlS } = parseConfig({}).auth
    expect([accessTtlS, refreshTtlS]).toEqual([3_600, 604_800])
  })
})

describeApi(
  'a first start in mode accounts',
  (api: Api) => {
    test('has no user that anybody knows the password of', async () => {
      const { rows } = await sql`select 1 from ${sql.table(`${api.opened.database.schema}.users`)}`.execute(
        api.opened.database.db,
      )
      expect(rows).toEqual([])
      for (const [username, password] of [
        ['admin', 'admin'],
        ['langflow', 'langflow'],
        ['root', ''],
        ['', ''],
        ['local', 'local'],
      ])
        expect([400, 401]).toContain((await api.call('POST', '/api/login', { username, password })).status)
      const answer = await api.call('POST', '/api/register', { username: 'anna', password: 'long enough' })
      expect(refusal(answer)).toMatchObject({
        status: 403,
        message: expect.stringContaining('registration is off'),
      })
    })
  },
  { auth: { ...TEST_AUTH, mode: 'accounts' } },
)
