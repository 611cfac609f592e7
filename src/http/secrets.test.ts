import { randomBytes, randomUUID } from 'node:crypto'
import fc from 'fast-check'
import { sql } from 'kysely'
import { describe, expect, test } from 'vitest'
import { ACCOUNTS, bearer, newAccount } from '../../test/accounts.ts'
import { TEST_KEY } from '../../test/harness.ts'
import { type Answer, type Api, describeApi, INSTANT, type Json, refusal, UUID } from '../../test/http.ts'
import { readKey } from '../core/key-ring.ts'
import { createKeySource } from '../credentials/service.ts'

const KEY = 'sk-proj-abcdefghijklmnop'
const KEYS = '/api/users/me/api-keys'
const KEY_ID = readKey(TEST_KEY)?.id
const masked = {
  user_id: 'local',
  provider: 'openai',
  mask: 'sk-pro****mnop',
  is_readable: true,
  key_id: KEY_ID,
  created_at: expect.stringMatching(INSTANT),
  updated_at: expect.stringMatching(INSTANT),
}

describeApi('secrets over HTTP, in single-user mode', (api) => {
  test('a key is stored, shown as a mask, replaced and deleted', async () => {
    expect((await api.call('GET', KEYS)).body).toEqual({ items: [], next_cursor: null })
    expect(refusal(await api.call('GET', `${KEYS}/openai`))).toMatchObject({ status: 404, code: 'not_found' })
    const first = await api.call('PUT', `${KEYS}/openai`, { api_key: KEY })
    expect([first.status, first.body]).toEqual([201, masked])
    expect(first.headers['cache-control']).toBe('no-store')
    const again = await api.call('PUT', `${KEYS}/openai`, { api_key: `${KEY}-new` })
    expect([again.status, again.body.mask]).toEqual([200, 'sk-pro****-new'])
    for (const url of [KEYS, `${KEYS}/openai`]) {
      const { status, body, headers } = await api.call('GET', url)
      expect([status, body.items?.[0] ?? body]).toEqual([200, again.body])
      expect(headers['cache-control']).toBe('no-store')
    }
    expect(await api.opened.tb.credentials.forUser('local').resolve('openai')).toBe(`${KEY}-new`)
    for (let n = 0; n < 2; n++) expect((await api.call('DELETE', `${KEYS}/openai`)).status).toBe(204)
    expect((await api.call('GET', `${KEYS}/openai`)).status).toBe(404)
  })

  test.each([
    ['no body', 'openai', undefined],
    ['an empty key', 'openai', { api_key: '' }],
    ['a key with a line break', 'openai', { api_key: 'sk-hunter2\n' }],
    ['a key that is no text', 'openai', { api_key: ['hunter2'] }],
    ['a key of 1 MB', 'openai', { api_key: 'hunter2'.repeat(140_000) }],
    ['another field', 'openai', { api_key: KEY, user_id: 'somebody' }],
    ['a provider in capitals', 'OpenAI', { api_key: KEY }],
    ['a provider with a path', '..%2f..%2fetc', { api_key: KEY }],
    ['a provider with NUL', 'x%00', { api_key: KEY }],
    ['a provider that is too long', 'x'.repeat(64), { api_key: KEY }],
  ])('%s is refused, and no key is repeated', async (_, provider, body) => {
    const answer = await api.call('PUT', `${KEYS}/${provider}`, body)
    expect(refusal(answer)).toMatchObject({ status: 400, code: 'invalid_input' })
    expect(answer.text).not.toContain('hunter2')
    expect((await api.call('GET', KEYS)).body.items).toEqual([])
  })

  test('a variable is made, read, changed and deleted', async () => {
    const body = { name: 'TOKEN', value: KEY, default_fields: ['api_key'] }
    const made = await api.call('POST', '/api/variables', body)
    expect([made.status, made.body]).toEqual([
      201,
      {
        id: expect.stringMatching(UUID),
        user_id: 'local',
        name: 'TOKEN',
        type: 'credential',
        value: null,
        mask: '****',
        is_readable: true,
        key_id: KEY_ID,
        default_fields: ['api_key'],
        created_at: expect.stringMatching(INSTANT),
        updated_at: expect.stringMatching(INSTANT),
      },
    ])
    const url = `/api/variables/${made.body.id}`
    expect(made.headers.location).toBe(url)
    expect((await api.call('GET', url)).body).toEqual(made.body)
    expect(refusal(await api.call('POST', '/api/variables', body))).toMatchObject({ code: 'conflict' })
    expect(refusal(await api.call('PATCH', url, { type: 'generic' }))).toMatchObject({
      code: 'invalid_input',
    })
    const shown = await api.call('PATCH', url, { type: 'generic', value: 'nul \0 here' })
    expect(shown.body).toMatchObject({ type: 'generic', value: 'nul \0 here', mask: '****' })
    expect((await api.call('GET', '/api/variables')).body).toEqual({ items: [shown.body], next_cursor: null })
    for (let n = 0; n < 2; n++) expect((await api.call('DELETE', url)).status).toBe(204)
    expect((await api.call('GET', url)).status).toBe(404)
  })

  test('a value of 1 MB is refused', async () => {
    const body = { name: 'large', value: 'x'.repeat(900_000) }
    expect((await api.call('POST', '/api/variables', body)).status).toBe(400)
    const { status } = await api.call('POST', '/api/variables', { ...body, value: 'x'.repeat(1_100_000) })
    expect(status).toBe(413)
  })

  test('variables have pages', async () => {
    for (const name of ['p1', 'p2', 'p3']) await api.call('POST', '/api/variables', { name, value: 'x' })
    const names: string[] = []
    let cursor = ''
    for (let n = 0; n < 3; n++) {
      const { body } = await api.call('GET', `/api/variables?limit=1${cursor}`)
      names.push(...body.items.map(({ name }: Json) => name))
      cursor = `&cursor=${body.next_cursor}`
    }
    expect(names).toEqual(['p1', 'p2', 'p3'])
    expect(cursor).toBe('&cursor=null')
  })

  test('rows that do not open are there without mask and value, and are no failure', async () => {
    const { db } = api.opened.database
    await api.call('PUT', `${KEYS}/broken`, { api_key: KEY })
    const { body } = await api.call('POST', '/api/variables', { name: 'x', value: KEY, type: 'generic' })
    for (const table of ['user_api_keys', 'variables'])
      await sql`update ${sql.table(table)} set token = 'nothing', key_id = 'abcdabcdabcdabcd'`.execute(db)
    const expected = { mask: null, is_readable: false, key_id: 'abcdabcdabcdabcd' }
    expect((await api.call('GET', `${KEYS}/broken`)).body).toMatchObject(expected)
    expect((await api.call('GET', KEYS)).body.items).toMatchObject([expected])
    expect((await api.call('GET', `/api/variables/${body.id}`)).body).toMatchObject({
      ...expected,
      value: null,
    })
    const listed = (await api.call('GET', '/api/variables')).body.items
    expect(listed.every(({ is_readable }: Json) => is_readable === false)).toBe(true)
  })
})

describeApi(
  'secrets over HTTP, without a key',
  (api) => {
    test('are unavailable, by the name of the variable; all else works', async () => {
      for (const [method, url, body] of [
        ['GET', KEYS],
        ['GET', `${KEYS}/openai`],
        ['PUT', `${KEYS}/openai`, { api_key: KEY }],
        ['GET', '/api/variables'],
        ['POST', '/api/variables', { name: 'x', value: KEY }],
      ] as const) {
        const answer = await api.call(method, url, body)
        expect(refusal(answer), url).toMatchObject({
          status: 503,
          code: 'unavailable',
          message: expect.stringContaining('ENCRYPTION_KEY'),
        })
      }
      expect((await api.call('DELETE', `${KEYS}/openai`)).status).toBe(204)
      expect((await api.call('POST', '/api/threads', {})).status).toBe(201)
      expect(JSON.stringify([api.logged, api.opened.logged])).not.toContain(KEY)
    })
  },
  { keys: createKeySource({ databaseUrl: 'postgres://x', dataDir: '/none', encryptionKeys: undefined }) },
)

describeApi(
  'secrets over HTTP, with accounts',
  (api) => {
    test('a key of scope read sees masks, one of scope admin alone changes', async () => {
      const account = await newAccount(api.opened.tb)
      const [read, write, admin] = await Promise.all(['read', 'write', 'admin'].map((s) => account.key([s])))
      const put = (key?: string) =>
        api.call('PUT', `${KEYS}/openai`, { api_key: KEY }, { 'x-api-key': String(key) })
      expect([(await put(read)).status, (await put(write)).status, (await put(admin)).status]).toEqual([
        403, 403, 201,
      ])
      const seen = await api.call('GET', KEYS, undefined, { 'x-api-key': String(read) })
      expect(seen.body.items).toMatchObject([{ provider: 'openai', mask: 'sk-pro****mnop' }])
    })

    test('superusers have no way to what others keep secret', async () => {
      const account = await newAccount(api.opened.tb)
      const chief = await newAccount(api.opened.tb, { isSuperuser: true })
      const marker = randomUUID()
      await api.call('PUT', `${KEYS}/openai`, { api_key: `sk-${marker}` }, account.headers)
      const body = { name: marker, value: marker, type: 'generic' }
      const { id } = (await api.call('POST', '/api/variables', body, account.headers)).body
      for (const path of [
        'variables',
        `variables/${id}`,
        'users/me/api-keys',
        'users/me/api-keys/openai',
        'me/api-keys',
      ])
        expect(
          (await api.call('GET', `/api/admin/users/${account.id}/${path}`, undefined, chief.headers)).status,
        ).toBe(404)
      const log = await api.call('GET', `/api/admin/audit?user_id=${account.id}`, undefined, chief.headers)
      expect(log.body.items.map(({ action }: Json) => action).slice(0, 2)).toEqual([
        'variable_created',
        'provider_key_set',
      ])
      expect(log.text).not.toContain(marker)
    })

    test('who stores at the same time gets 201 once, and one of the keys stays whole', async () => {
      const { headers, id } = await newAccount(api.opened.tb)
      const keys = Array.from({ length: 12 }, (_, i) => `${i}-${randomUUID()}`)
      const answers = await Promise.all(
        keys.map((api_key) => api.call('PUT', `${KEYS}/openai`, { api_key }, headers)),
      )
      expect(answers.map(({ status }) => status).sort()).toEqual([...Array(11).fill(200), 201])
      expect(keys).toContain(await api.opened.tb.credentials.forUser(id).resolve('openai'))
    })

    describe('a secret, whatever it is', () => {
      test('is in no answer, no log line and no row', async () => {
        const [account, stranger] = [await newAccount(api.opened.tb), await newAccount(api.opened.tb)]
        const chief = await newAccount(api.opened.tb, { isSuperuser: true })
        const answers: Answer[] = []
        const call = async (method: string, url: string, body?: unknown, headers = account.headers) => {
          const answer = await api.call(method, url, body, headers)
          answers.push(answer)
          return answer
        }
        const secrets = fc.tuple(fc.string({ unit: 'grapheme', maxLength: 20 }), fc.nat(40), fc.boolean())
        await fc.assert(
          fc.asyncProperty(secrets, async ([odd, length, isKey]) => {
            // what is looked for is random, around it is what may be hard to hide
            const needle = randomBytes(8 + length).toString('base64url')
            const secret = isKey ? `${needle}${odd}x` : `${odd}\0${needle}\n${odd}`
            await everyCall(call, secret, [stranger.headers, chief.headers])
            const log = JSON.stringify([api.logged, api.opened.logged])
            const stored = JSON.stringify(await rowsOf(api))
            const shown = answers.map(({ text, headers }) => text + JSON.stringify(headers)).join('\n')
            for (const text of [log, stored, shown]) expect(text.includes(needle)).toBe(false)
            answers.length = 0
          }),
          { numRuns: 15 },
        )
        expect(api.logged.filter(({ level }) => level >= 50)).toEqual([])
      })
    })
  },
  { auth: ACCOUNTS },
)

type Call = (method: string, url: string, body?: unknown, headers?: Record<string, string>) => Promise<Answer>

/** Every route, with the secret where it belongs and in bodies that are refused. */
async function everyCall(call: Call, secret: string, others: Record<string, string>[]): Promise<void> {
  const url = `${KEYS}/openai`
  await call('PUT', url, { api_key: secret })
  for (const body of [{ api_key: [secret] }, { api_key: secret, more: secret }, [secret], secret])
    await call('PUT', url, body)
  await call('PUT', url, `{"api_key": "${secret}`)
  await call('PUT', `${KEYS}/NOT-A-PROVIDER`, { api_key: secret })
  await call('PUT', url, { api_key: secret }, bearer('nobody'))
  await call('GET', KEYS)
  await call('GET', url)
  const name = randomUUID()
  const { body: made } = await call('POST', '/api/variables', { name, value: secret })
  await call('POST', '/api/variables', { name, value: secret })
  await call('POST', '/api/variables', { name: '', value: secret })
  await call('POST', '/api/variables', { name, value: { secret } })
  await call('POST', '/api/variables', { name, value: secret, type: secret })
  const variable = `/api/variables/${made.id}`
  await call('PATCH', variable, { type: 'generic' })
  await call('PATCH', variable, { type: 'generic', value: secret.repeat(6_000) })
  await call('PATCH', variable, { value: secret, type: 'credential' })
  await call('PATCH', variable, { default_fields: [''], value: secret })
  for (const headers of others) {
    for (const path of [url, KEYS, variable, '/api/variables', '/api/api-keys', '/api/me'])
      await call('GET', path, undefined, headers)
    await call('PATCH', variable, { type: 'generic' }, headers)
    await call('GET', '/api/admin/audit', undefined, headers)
  }
  await call('GET', '/api/variables')
  await call('GET', variable)
  await call('GET', '/api/export')
  await call('DELETE', variable)
  await call('DELETE', url)
}

async function rowsOf({ opened: { database } }: Api): Promise<unknown[]> {
  const { db } = database
  const all = []
  for (const table of ['user_api_keys', 'variables', 'audit_log'])
    all.push((await sql`select * from ${sql.table(table)}`.execute(db)).rows)
  return all
}
