import { randomBytes, randomUUID } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { sql } from 'kysely'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { engines, openServices, recordingLog, TEST_KEY, type TestDatabase } from '../../test/harness.ts'
import { hasPython, python } from '../../test/python.ts'
import { createFernet } from '../core/fernet.ts'
import { type KeyRing, type KeySource, readKey, readRing } from '../core/key-ring.ts'
import type { Threadbase } from '../threadbase.ts'
import { createKeySource, fixedKeys, newEncryptionKey } from './service.ts'

const KEY = 'sk-proj-abcdefghijklmnop'
const KEY_ID = String(readKey(TEST_KEY)?.id)
const LIBRARY = { userId: 'tests', via: 'library' } as const
const newScope = () => ({ userId: `u-${randomUUID()}` })

for (const engine of engines) {
  describe.skipIf(!engine.available)(`credentials on ${engine.name}`, () => {
    let opened: TestDatabase
    let tb: Threadbase
    beforeAll(async () => {
      opened = await engine.open()
      tb = opened.tb
    })
    afterAll(() => opened?.close())
    const withKeys = (keys: KeySource) => openServices(opened.database, { keys })
    const put = (scope: { userId: string }, provider: string, apiKey: string, on = tb) =>
      on.credentials.apiKeys.put(scope, LIBRARY, provider, { apiKey })
    const resolve = ({ userId }: { userId: string }, provider: string, on = tb) =>
      on.credentials.forUser(userId).resolve(provider)
    const insert = (userId: string, provider: string, token: string, keyId: string | null = null) =>
      sql`insert into ${sql.table('user_api_keys')} (user_id, provider, token, key_id)
          values (${userId}, ${provider}, ${token}, ${keyId})`.execute(opened.database.db)
    const rowOf = async (userId: string, provider = 'openai') =>
      (
        await sql<{ token: string; key_id: string | null }>`
          select token, key_id from ${sql.table('user_api_keys')}
           where user_id = ${userId} and provider = ${provider}`.execute(opened.database.db)
      ).rows[0]

    test('a key is stored, shown as a mask, given to this process, replaced and removed', async () => {
      const scope = newScope()
      const { apiKeys } = tb.credentials
      await expect(resolve(scope, 'openai')).rejects.toMatchObject({
        code: 'not_found',
        details: { provider: 'openai' },
      })
      expect(await tb.credentials.forUser(scope.userId).find('openai')).toBeUndefined()
      expect(await apiKeys.findKey(scope, 'openai')).toBeUndefined()
      await expect(apiKeys.getKey(scope, 'openai')).rejects.toMatchObject({ code: 'not_found' })
      const first = await put(scope, 'openai', KEY)
      expect(first).toEqual({
        created: true,
        apiKey: {
          userId: scope.userId,
          provider: 'openai',
          mask: 'sk-pro****mnop',
          isReadable: true,
          keyId: KEY_ID,
          createdAt: expect.any(Date),
          updatedAt: expect.any(Date),
        },
      })
      expect(await resolve(scope, 'openai')).toBe(KEY)
      const second = await put(scope, 'openai', 'short')
      expect(second).toMatchObject({ created: false, apiKey: { mask: '****' } })
      expect(second.apiKey.createdAt).toEqual(first.apiKey.createdAt)
      expect(await apiKeys.getKey(scope, 'openai')).toEqual(second.apiKey)
      await put(scope, 'anthropic', KEY)
      expect((await apiKeys.list(scope)).items.map(({ provider }) => provider)).toEqual([
        'anthropic',
        'openai',
      ])
      expect(await tb.credentials.forUser(scope.userId).find('openai')).toBe('short')
      expect(await apiKeys.delete(scope, LIBRARY, 'openai')).toBe(true)
      expect(await apiKeys.delete(scope, LIBRARY, 'openai')).toBe(false)
      await expect(resolve(scope, 'openai')).rejects.toMatchObject({ code: 'not_found' })
    })

    test.each(['openai', 'a', '0', 'azure-openai', 'my.provider_2', `x${'y'.repeat(62)}`])(
      'a provider may be called %s',
      async (provider) => {
        const scope = newScope()
        await put(scope, provider, KEY)
        expect(await resolve(scope, provider)).toBe(KEY)
      },
    )

    test.each(['', 'OpenAI', '.x', '-x', '_x', 'a b', 'a/b', '../x', 'é', 'x\0', 'x\n', 'x'.repeat(64), 5])(
      'a provider may not be called %j',
      async (provider) => {
        const scope = newScope()
        const refused = { code: 'invalid_input' }
        await expect(put(scope, provider as string, KEY)).rejects.toMatchObject(refused)
        await expect(resolve(scope, provider as string)).rejects.toMatchObject(refused)
        await expect(tb.credentials.apiKeys.getKey(scope, provider as string)).rejects.toMatchObject(refused)
      },
    )

    test.each([
      ['empty', ''],
      ['with a space before', ' sk-hunter2'],
      ['with a space behind', 'sk-hunter2 '],
      ['with a line break behind', 'sk-hunter2\n'],
      ['with a line break within', 'sk-hun\r\nter2'],
      ['with letters that no header holds', 'hunter2-schlüssel'],
      ['with a dash of a web page', 'sk‑hunter2'],
      ['with NUL', 'sk-hunter2\0x'],
      ['with half of a character', 'sk-hunter2\ud800'],
      ['of more than 64 KB', 'hunter2'.repeat(10_000)],
      ['of more than 64 KB in fewer characters', '\u00fc'.repeat(40_000)],
      ['that is no text', { hunter2: true }],
    ])('a key %s is refused, and not repeated', async (_, apiKey) => {
      const scope = newScope()
      const failing = put(scope, 'openai', apiKey as string)
      await expect(failing).rejects.toMatchObject({ code: 'invalid_input' })
      const error = await failing.catch((error) => error)
      expect(JSON.stringify([error.message, error.details])).not.toContain('hunter2')
      expect((await tb.credentials.apiKeys.list(scope)).items).toEqual([])
    })

    test('a key of 64 KB is kept, and one with spaces within', async () => {
      const scope = newScope()
      for (const key of ['x'.repeat(65_536), 'Basic abc def']) {
        await put(scope, 'openai', key)
        expect(await resolve(scope, 'openai')).toBe(key)
      }
    })

    test('a user has keys for a hundred providers at most', async () => {
      const scope = newScope()
      for (let i = 0; i < 100; i++) await insert(scope.userId, `p${i}`, 'token')
      await expect(put(scope, 'openai', KEY)).rejects.toMatchObject({ code: 'conflict' })
      expect((await put(scope, 'p99', KEY)).created).toBe(false)
    })

    test('of many who store at the same time one made the row, and one of their keys is there, whole', async () => {
      const scope = newScope()
      const keys = Array.from({ length: 20 }, (_, i) => `key ${i} of the race`)
      const results = await Promise.all(keys.map((key) => put(scope, 'openai', key)))
      expect(results.filter(({ created }) => created)).toHaveLength(1)
      expect(keys).toContain(await resolve(scope, 'openai'))
    })

    test('what changes is in the audit log, without the key', async () => {
      const scope = newScope()
      await put(scope, 'openai', KEY)
      await tb.credentials.apiKeys.delete(scope, LIBRARY, 'openai')
      await tb.credentials.apiKeys.delete(scope, LIBRARY, 'openai')
      const { items } = await tb.audit.list(scope)
      expect(items.map(({ action, target, actorId }) => [action, target, actorId])).toEqual([
        ['provider_key_deleted', 'provider_key openai', 'tests'],
        ['provider_key_set', 'provider_key openai', 'tests'],
      ])
    })

    describe('a row that does not open', () => {
      const other = newEncryptionKey()
      const otherRing = readRing([other]) as KeyRing
      const sealWith = (ring: KeyRing, text: string) => createFernet(ring).encrypt(Buffer.from(text))
      const own = readRing([TEST_KEY]) as KeyRing

      test.each([
        [
          'of a missing key',
          () => sealWith(otherRing, KEY),
          otherRing[0].id,
          /not among the encryption keys/,
        ],
        ['of a missing key, unnamed', () => sealWith(otherRing, KEY), null, /its row names none/],
        ['with its key named wrongly', () => sealWith(otherRing, KEY), KEY_ID, /was changed/],
        ['that is plaintext', () => KEY, null, /no Fernet token/],
        ['that is cut', () => sealWith(own, KEY).slice(0, -8), KEY_ID, /no Fernet token|was changed/],
        ['of nothing', () => sealWith(own, ''), KEY_ID, /is empty/],
        ['of bytes', () => createFernet(own).encrypt(Buffer.from([0xff])), KEY_ID, /not UTF-8/],
      ])('%s: a clear error that names its key, and a list that goes on', async (_, seal, keyId, message) => {
        const scope = newScope()
        await put(scope, 'anthropic', KEY)
        await insert(scope.userId, 'openai', seal(), keyId)
        const failing = resolve(scope, 'openai')
        await expect(failing).rejects.toMatchObject({
          code: 'unavailable',
          message: expect.stringMatching(message),
          details: { provider: 'openai', keyId },
        })
        const error = await failing.catch((error) => error)
        if (keyId !== null) expect(error.message).toContain(keyId)
        expect(JSON.stringify([error.message, error.details])).not.toContain('sk-proj')
        const { items } = await tb.credentials.apiKeys.list(scope)
        expect(items).toMatchObject([
          { provider: 'anthropic', mask: 'sk-pro****mnop', isReadable: true },
          { provider: 'openai', mask: null, isReadable: false, keyId },
        ])
        expect(await tb.credentials.apiKeys.getKey(scope, 'openai')).toEqual(items[1])
        // it can be replaced
        await put(scope, 'openai', KEY)
        expect(await resolve(scope, 'openai')).toBe(KEY)
      })

      test('opens again when its key is back, wherever that is in the ring', async () => {
        const scope = newScope()
        const theirs = await withKeys(fixedKeys([other]))
        await put(scope, 'openai', KEY, theirs)
        expect((await rowOf(scope.userId))?.key_id).toBe(otherRing[0].id)
        await expect(resolve(scope, 'openai')).rejects.toMatchObject({ code: 'unavailable' })
        const both = await withKeys(fixedKeys([TEST_KEY, other]))
        expect(await resolve(scope, 'openai', both)).toBe(KEY)
        await put(scope, 'openai', KEY, both)
        expect((await rowOf(scope.userId))?.key_id).toBe(KEY_ID)
      })
    })

    test('without a key that must be configured these calls are unavailable and say so; removing goes', async () => {
      const scope = newScope()
      await put(scope, 'openai', KEY)
      const { id } = await tb.variables.create(scope, LIBRARY, { name: 'n', value: 'v' })
      const keys = createKeySource({
        databaseUrl: 'postgres://x',
        dataDir: '/nowhere',
        encryptionKeys: undefined,
      })
      const keyless = await withKeys(keys)
      const { apiKeys } = keyless.credentials
      const calls = [
        () => put(scope, 'openai', KEY, keyless),
        () => resolve(scope, 'openai', keyless),
        () => apiKeys.list(scope),
        () => apiKeys.getKey(scope, 'openai'),
        () => keyless.variables.create(scope, LIBRARY, { name: 'm', value: 'v' }),
        () => keyless.variables.list(scope),
        () => keyless.variables.getVariable(scope, id),
        () => keyless.variables.update(scope, LIBRARY, id, { name: 'm' }),
        () => keyless.variables.resolve(scope, 'n'),
      ]
      for (const call of calls)
        await expect(call(), String(call)).rejects.toMatchObject({
          code: 'unavailable',
          message: expect.stringContaining('ENCRYPTION_KEY'),
        })
      expect(await tb.variables.resolve(scope, 'n')).toBe('v')
      expect(await apiKeys.delete(scope, LIBRARY, 'openai')).toBe(true)
      expect(await keyless.variables.delete(scope, LIBRARY, id)).toBe(true)
      expect((await keyless.threads.create(scope)).userId).toBe(scope.userId)
    })

    describe('a ring of no key', () => {
      test('reads nothing, lists rows without masks, and makes no key', async () => {
        const scope = newScope()
        await put(scope, 'openai', KEY)
        const { log, logged } = recordingLog()
        const none: KeySource = {
          find: async () => [],
          get: async () => {
            throw new Error('a key was made to read')
          },
        }
        const empty = await openServices(opened.database, { keys: none }, log)
        await expect(resolve(scope, 'openai', empty)).rejects.toMatchObject({
          code: 'unavailable',
          details: { keyId: KEY_ID },
        })
        expect((await empty.credentials.apiKeys.list(scope)).items).toMatchObject([{ mask: null }])
        expect(logged).toEqual([])
      })
    })

    describe.skipIf(!hasPython)('rows of Python', () => {
      test('are read when moved over by SQL, and ours are read there', async () => {
        const scope = newScope()
        const key = python('print(Fernet.generate_key().decode())')
        const secrets = ['sk-from-python-0123456789', 'grün 😀', 'x'.repeat(3_000)]
        const ours = newEncryptionKey()
        const both = await withKeys(fixedKeys([ours, key]))
        for (const [i, secret] of secrets.entries()) {
          const token = python(
            'print(Fernet(sys.argv[1]).encrypt(sys.argv[2].encode()).decode())',
            key,
            secret,
          )
          await insert(scope.userId, `p${i}`, token)
          expect(await resolve(scope, `p${i}`, both)).toBe(secret)
        }
        const masks = (await both.credentials.apiKeys.list(scope)).items.map(({ mask }) => mask)
        expect(masks).toEqual(['sk-fro****6789', '****', 'xxxxxx****xxxx'])
        // no new key has other letters
        for (const secret of secrets.filter((text) => text !== 'grün 😀')) {
          await put(scope, 'ours', secret, both)
          const { token = '' } = (await rowOf(scope.userId, 'ours')) ?? {}
          const theirs = python('print(Fernet(sys.argv[1]).decrypt(sys.argv[2].encode()).hex())', ours, token)
          expect(Buffer.from(theirs, 'hex').toString()).toBe(secret)
        }
      })

      test('come with the SQL of docs/keep-secrets.md', async () => {
        const { db, schema } = opened.database
        const theirs = `theirs_${randomBytes(4).toString('hex')}`
        const key = newEncryptionKey()
        const seal = (text: string) => createFernet(readRing([key]) as KeyRing).encrypt(Buffer.from(text))
        await sql`create schema ${sql.id(theirs)}`.execute(db)
        await sql`create table ${sql.id(theirs)}.user_api_keys (user_id varchar(255) primary key, openai_key text,
          anthropic_key text, created_at timestamp default now(), updated_at timestamp)`.execute(db)
        await sql`create table ${sql.id(theirs)}.variable (id uuid primary key, name varchar(255), value text,
          type varchar(50), user_id uuid, created_at timestamp default now(), updated_at timestamp)`.execute(
          db,
        )
        const [user, id] = [randomUUID(), randomUUID()]
        await sql`insert into ${sql.id(theirs)}.user_api_keys values (${user}, ${seal('sk-openai')}, '')`.execute(
          db,
        )
        await sql`insert into ${sql.id(theirs)}.variable
                  values (${id}::uuid, 'V', ${seal('a value')}, 'Generic', ${user}::uuid)`.execute(db)
        const page = await readFile(new URL('../../docs/keep-secrets.md', import.meta.url), 'utf8')
        const [, statements = ''] = /^```sql\n([\s\S]*?)^```$/m.exec(page) ?? []
        const here = statements.replaceAll('public.', `${theirs}.`).replaceAll('threadbase.', `${schema}.`)
        const inserts = here.split(/;$/m).filter((text) => text.includes('insert'))
        // a second time changes nothing
        for (const insert of [...inserts, ...inserts]) await sql.raw(insert).execute(db)
        const both = await withKeys(fixedKeys([TEST_KEY, key]))
        expect(await resolve({ userId: user }, 'openai', both)).toBe('sk-openai')
        expect(await both.credentials.forUser(user).find('anthropic')).toBeUndefined()
        expect(await both.variables.getVariable({ userId: user }, id)).toMatchObject({
          name: 'V',
          type: 'generic',
          value: 'a value',
          keyId: null,
        })
        await sql`drop schema ${sql.id(theirs)} cascade`.execute(db)
      })
    })

    test('who has no key is found to have none, also where there is no encryption key', async () => {
      const refuse = async () => {
        throw new Error('of the key source')
      }
      const without = await withKeys({ find: refuse, get: refuse })
      expect(await without.credentials.forUser(newScope().userId).find('openai')).toBeUndefined()
      const scope = newScope()
      await put(scope, 'openai', 'sk-of-somebody')
      await expect(without.credentials.forUser(scope.userId).find('openai')).rejects.toThrow(
        'of the key source',
      )
    })

    test('no plaintext and no token is in the log', async () => {
      const secret = randomBytes(30).toString('hex')
      const scope = newScope()
      await put(scope, 'openai', secret)
      await resolve(scope, 'openai')
      const row = await rowOf(scope.userId)
      const log = JSON.stringify(opened.logged)
      expect(log).not.toContain(secret)
      expect(log).not.toContain(row?.token)
      expect(JSON.stringify(row)).not.toContain(secret)
    })
  })
}
