import { randomBytes, randomUUID } from 'node:crypto'
import { connect } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { ACCOUNTS, bearer, newAccount } from '../../test/accounts.ts'
import { describeApi, refusal } from '../../test/http.ts'
import { unzip } from '../../test/zip.ts'

const BY = { userId: 'tests', via: 'library' } as const

describeApi(
  'what is stored of me',
  (api) => {
    const erase = (headers: Record<string, string>, body: object) =>
      api.call('DELETE', '/api/users/me', body, headers)
    const exportMe = (headers: Record<string, string>) =>
      api.app.inject({ method: 'GET', url: '/api/users/me/export', headers })

    test('comes as a zip under a plain name', async () => {
      const me = await newAccount(api.opened.tb)
      await api.call('POST', '/api/threads', { title: 'mine' }, me.headers)
      const answer = await exportMe(me.headers)
      expect(answer.statusCode).toBe(200)
      expect(answer.headers).toMatchObject({ 'content-type': 'application/zip', 'cache-control': 'no-store' })
      expect(answer.headers['content-disposition']).toMatch(
        /^attachment; filename="threadbase-[\w-]+-\d{4}-\d\d-\d\d\.zip"$/,
      )
      const files = await unzip(answer.rawPayload)
      expect(JSON.parse(String(files.get('threads.jsonl'))).title).toBe('mine')
      const account = JSON.parse(String(files.get('account.json')))
      expect(account).toMatchObject({ id: me.id, username: me.username, has_password: true })
      const [line] = (await api.opened.tb.audit.list({ userId: me.id })).items
      expect(line).toMatchObject({ action: 'data_exported', actorId: me.id, via: 'session' })
    })

    test('is erased for who says so with name and password', async () => {
      const me = await newAccount(api.opened.tb)
      const key = await me.key(['admin'])
      const { body: thread } = await api.call('POST', '/api/threads', { title: 'mine' }, me.headers)
      const { password, username } = me
      const wrong: [body: object, status: number, code: string][] = [
        [{}, 400, 'invalid_input'],
        [{ confirm: 'yes', password }, 400, 'invalid_input'],
        [{ confirm: username }, 400, 'invalid_input'],
        [{ confirm: username, password: 'not it' }, 401, 'unauthorized'],
        [{ confirm: username, password, more: 1 }, 400, 'invalid_input'],
      ]
      for (const [body, status, code] of wrong)
        expect(refusal(await erase(me.headers, body)), JSON.stringify(body)).toMatchObject({ status, code })
      expect((await api.call('GET', `/api/threads/${thread.id}`, undefined, me.headers)).status).toBe(200)
      const { status, body, headers } = await erase(me.headers, { confirm: username.toUpperCase(), password })
      expect(status).toBe(200)
      expect(body).toMatchObject({
        user_id: me.id,
        rows: { threads: 1, users: 1, sessions: 1, api_keys: 1 },
        ...{ blobs: 0, blob_bytes: 0, blobs_left: 0 },
      })
      expect(headers['set-cookie']).toBeDefined()
      for (const credential of [me.headers, bearer(key)])
        expect((await api.call('GET', '/api/me', undefined, credential)).status).toBeOneOf([401, 403])
      const login = await api.call('POST', '/api/login', { username, password })
      expect(refusal(login)).toMatchObject({ status: 401, code: 'unauthorized' })
      const lines = (await api.opened.tb.audit.list({ userId: me.id })).items
      expect(lines.find(({ action }) => action === 'data_erased')).toMatchObject({
        actorId: me.id,
        via: 'session',
        address: '127.0.0.1',
      })
      // the name is free
      await api.opened.tb.identity.users.create(BY, { username, password })
    })

    test('of the last superuser stays', async () => {
      const { tb } = api.opened
      for (const { id, isSuperuser } of (await tb.identity.users.list({ limit: 200 })).items)
        if (isSuperuser) await tb.identity.users.update(BY, id, { isSuperuser: false })
      const chief = await newAccount(tb, { isSuperuser: true })
      const body = { confirm: chief.id, password: chief.password }
      expect(refusal(await erase(chief.headers, body))).toMatchObject({
        status: 409,
        code: 'conflict',
        message: expect.stringContaining('last superuser'),
      })
      await newAccount(tb, { isSuperuser: true })
      expect((await erase(chief.headers, body)).status).toBe(200)
    })

    test('two erasures at once are both answered', async () => {
      const me = await newAccount(api.opened.tb)
      for (let i = 0; i < 20; i++) await api.call('POST', '/api/threads', {}, me.headers)
      const body = { confirm: me.id, password: me.password }
      const answers = await Promise.all([erase(me.headers, body), erase(me.headers, body)])
      // the later one may be refused for what the first has begun
      for (const { status } of answers) expect([200, 400, 401, 403]).toContain(status)
      expect(answers.some(({ status }) => status === 200)).toBe(true)
      expect((await api.opened.tb.gdpr.count({ userId: me.id })).rows).toEqual({})
    })

    test('a client that goes in the middle ends its export', async () => {
      const { tb } = api.opened
      const me = await newAccount(tb)
      await tb.files.create({ userId: me.id }, randomBytes(20_000_000))
      const address = new URL(await api.app.listen({ port: 0, host: '127.0.0.1' }))
      const socket = connect(Number(address.port), '127.0.0.1')
      socket.write(
        `GET /api/users/me/export HTTP/1.1\r\nhost: x\r\nauthorization: ${me.headers.authorization}\r\n\r\n`,
      )
      await new Promise((resolve) => socket.once('data', resolve))
      const busy = await exportMe(me.headers)
      expect(busy.statusCode).toBe(429)
      expect(Number(busy.headers['retry-after'])).toBeGreaterThan(0)
      socket.destroy()
      for (let tries = 0; (await exportMe(me.headers)).statusCode !== 200; tries++) {
        expect(tries).toBeLessThan(50)
        await delay(50)
      }
    })

    test('an external user who was erased is forbidden, not made anew', async () => {
      const { tb } = api.opened
      const id = `ext-${randomUUID()}`
      await tb.identity.users.ensure({ id, provider: 'jwt' })
      await tb.gdpr.erase({ userId: id }, BY)
      await expect(tb.identity.ofProxy(id)).rejects.toMatchObject({ code: 'forbidden' })
    })
  },
  { auth: ACCOUNTS, uploadLimitBytes: 50_000_000 },
)

describeApi('what is stored of the one user', (api) => {
  test('is erased, and nothing more is stored until they are let in again', async () => {
    const thread = await api.newThread({ title: 'mine' })
    const { status, body } = await api.call('DELETE', '/api/users/me', { confirm: 'local' })
    expect([status, body.rows]).toEqual([200, { threads: 1 }])
    expect((await api.call('GET', '/api/threads')).body.items).toEqual([])
    for (const late of [
      await api.call('POST', '/api/threads', {}),
      await api.call('POST', `/api/threads/${thread}/messages`, { role: 'user', content: 'x' }),
      await api.call('PUT', '/api/keys/openai', { api_key: 'sk-0' }),
    ])
      if (late.status !== 404)
        expect(late).toMatchObject({
          status: 403,
          body: { error: { code: 'forbidden', details: { reason: 'erased' } } },
        })
    await api.opened.tb.gdpr.readmit({ userId: 'local' }, BY)
    await api.newThread()
  })
})
