import { randomBytes, randomUUID } from 'node:crypto'
import type { RunnableConfig } from '@langchain/core/runnables'
import { type Checkpoint, type CheckpointTuple, uuid6 } from '@langchain/langgraph-checkpoint'
import { sql } from 'kysely'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { engines, openServices, type TestDatabase } from '../../test/harness.ts'
import { hasPython, python } from '../../test/python.ts'
import { encryptedCheckpointTables, ThreadbaseSaver } from '../checkpoints/service.ts'
import { createFernet } from '../core/fernet.ts'
import { type KeyRing, readRing } from '../core/key-ring.ts'
import type { Threadbase } from '../threadbase.ts'
import { type RotationOptions, rotateKeys } from './rotation.ts'
import { encryptedSecretTables, fixedKeys, newEncryptionKey } from './service.ts'

const BY = { userId: 'tests', via: 'library' } as const
const SCOPE = { userId: 'u1' }
const [OLD, NEW, LOST] = [newEncryptionKey(), newEncryptionKey(), newEncryptionKey()]
const ringOf = (...keys: string[]) => readRing(keys) as KeyRing
const [OLD_ID, NEW_ID, LOST_ID] = [OLD, NEW, LOST].map((key) => ringOf(key)[0].id) as [string, string, string]
const STATE = { source: 'loop', step: 0, parents: {} } as const
const AT = { configurable: { thread_id: 't', checkpoint_ns: '' } }
const TABLES = ['user_api_keys', 'variables', 'checkpoints', 'checkpoint_blobs', 'checkpoint_writes']

/** Stores values of channels, all of them new. */
const storeState = (saver: ThreadbaseSaver, values: Record<string, unknown>, at: RunnableConfig = AT) => {
  const checkpoint = checkpointOf(values)
  return saver.put(at, checkpoint, STATE, checkpoint.channel_versions)
}

const checkpointOf = (channel_values: Record<string, unknown>): Checkpoint => ({
  v: 4,
  id: uuid6(0),
  ts: new Date().toISOString(),
  channel_values,
  channel_versions: Object.fromEntries(Object.keys(channel_values).map((name) => [name, 1])),
  versions_seen: {},
})

const messagesOf = (tuple: CheckpointTuple | undefined) =>
  (tuple?.checkpoint.channel_values.messages ?? []) as { text: string }[]

for (const engine of engines) {
  describe.skipIf(!engine.available)(`a change of keys on ${engine.name}`, () => {
    let opened: TestDatabase
    /** Servers before, while and after the key is changed. */
    let before: Threadbase
    let during: Threadbase
    let after: Threadbase
    beforeAll(async () => {
      opened = await engine.open({ keys: fixedKeys([OLD]) })
      before = opened.tb
      during = await openServices(opened.database, { keys: fixedKeys([NEW, OLD]) })
      after = await openServices(opened.database, { keys: fixedKeys([NEW]) })
    })
    afterAll(() => opened?.close())
    beforeEach(async () => {
      for (const table of TABLES) await sql`delete from ${sql.table(table)}`.execute(opened.database.db)
    })

    const rotate = (options: RotationOptions = {}, ring = ringOf(NEW, OLD), database = opened.database) =>
      rotateKeys(
        database,
        [...encryptedSecretTables(ring), ...encryptedCheckpointTables(ring)],
        ring,
        options,
      )
    const put = (tb: Threadbase, provider: string, apiKey: string, scope = SCOPE) =>
      tb.credentials.apiKeys.put(scope, BY, provider, { apiKey })
    const resolve = (tb: Threadbase, provider: string, { userId } = SCOPE) =>
      tb.credentials.forUser(userId).resolve(provider)
    const saverOf = (...keys: string[]) =>
      new ThreadbaseSaver(opened.database, { ...SCOPE, encryption: { keys } })
    const setKey = (provider: string, values: { token?: string; key_id?: string | null }) =>
      opened.database.db.updateTable('user_api_keys').set(values).where('provider', '=', provider).execute()
    const keyIds = async (table: string) =>
      (
        await sql<{ id: string | null }>`
          select distinct key_id as id from ${sql.table(table)} where key_id is not null or ${table} in ('user_api_keys', 'variables')`.execute(
          opened.database.db,
        )
      ).rows.map(({ id }) => id)

    test('everything is under the first key then, and says the same', async () => {
      for (let i = 0; i < 25; i++) {
        await put(before, `p${i}`, `secret ${i}`, { userId: `u${i % 4}` })
        await before.variables.create(SCOPE, BY, { name: `n${i}`, value: `value ${i}\0`, type: 'generic' })
      }
      await setKey('p3', { key_id: null })
      const values = { text: 'long '.repeat(100), list: [{ a: 'long '.repeat(100) }, 'b'], small: 'c' }
      const config = await storeState(saverOf(OLD), values)
      await saverOf(OLD).putWrites(config, [['x', 'pending '.repeat(50)]], 'task')
      const times = async () =>
        (await before.variables.list(SCOPE, { limit: 100 })).items.map(({ updatedAt }) => updatedAt)
      const [tuple, updatedAt] = [await saverOf(OLD).getTuple(AT), await times()]

      const told: number[] = []
      const rotation = await rotate({ batch: 7, onProgress: (done, of) => void told.push(done, of) })

      const { reencrypted, counts } = rotation
      expect(rotation).toMatchObject({ refused: 0, damaged: [], left: 0 })
      expect(new Set(counts.map(({ table, keyId, is }) => `${table} ${keyId} ${is}`))).toEqual(
        new Set(TABLES.map((table) => `${table} ${NEW_ID} first`)),
      )
      expect(counts.reduce((sum, { rows }) => sum + rows, 0)).toBe(reencrypted)
      expect(told.at(-1)).toBe(reencrypted)
      expect(told.filter((_, i) => i % 2 === 1).every((of) => of === reencrypted)).toBe(true)
      for (let i = 0; i < 25; i++) {
        expect(await resolve(after, `p${i}`, { userId: `u${i % 4}` })).toBe(`secret ${i}`)
        expect(await after.variables.resolve(SCOPE, `n${i}`)).toBe(`value ${i}\0`)
      }
      expect(await saverOf(NEW).getTuple(AT)).toEqual(tuple)
      await expect(saverOf(OLD).getTuple(AT)).rejects.toMatchObject({ code: 'unavailable' })
      expect((await after.variables.list(SCOPE, { limit: 100 })).items.map((one) => one.updatedAt)).toEqual(
        updatedAt,
      )
      expect(await rotate()).toMatchObject({ reencrypted: 0, left: 0 })
    })

    test('a token keeps the time it was written, as with MultiFernet', async () => {
      await put(before, 'openai', 'secret')
      const token = createFernet(ringOf(OLD)).encrypt(Buffer.from('secret'), 1_000_000_000)
      await setKey('openai', { token })
      await rotate()
      const [row] = await opened.database.db.selectFrom('user_api_keys').select('token').execute()
      expect(createFernet(ringOf(NEW)).decrypt(String(row?.token))).toMatchObject({
        writtenAt: 1_000_000_000,
      })
    })

    test.skipIf(!hasPython)('tokens of Python get a key, and Python reads them after it', async () => {
      const theirs = python('print(Fernet.generate_key().decode())')
      await put(before, 'openai', 'x')
      const encrypt = 'print(Fernet(sys.argv[1]).encrypt(sys.argv[2].encode()).decode())'
      await setKey('openai', { token: python(encrypt, theirs, 'sk-grün'), key_id: null })
      expect(await rotate({}, ringOf(NEW, theirs))).toMatchObject({ reencrypted: 1, left: 0 })
      expect(await keyIds('user_api_keys')).toEqual([NEW_ID])
      const [row] = await opened.database.db.selectFrom('user_api_keys').select('token').execute()
      const decrypt = 'print(Fernet(sys.argv[1]).decrypt(sys.argv[2].encode()).decode())'
      expect(python(decrypt, NEW, String(row?.token))).toBe('sk-grün')
    })

    test('rows with a key that is missing, or damaged, are left, counted and named; the others go on', async () => {
      const lost = await openServices(opened.database, { keys: fixedKeys([LOST]) })
      for (let i = 0; i < 9; i++) await put(i < 3 ? lost : before, `p${i}`, `secret ${i}`)
      await setKey('p0', { key_id: null })
      await setKey('p4', { token: 'no token', key_id: OLD_ID })
      await setKey('p5', { key_id: 'feedfeedfeedfeed' })
      await storeState(saverOf(LOST), { text: 'long '.repeat(100) })
      const config = { configurable: { thread_id: 'changed', checkpoint_ns: '' } }
      await storeState(saverOf(OLD), { text: 'long '.repeat(100) }, config)
      await sql`update ${sql.table('checkpoint_blobs')} set data = data || '\\x00'::bytea where thread_id = 'changed'`.execute(
        opened.database.db,
      )
      const rotation = await rotate({ batch: 2 })
      // p3, p5, whose key was named wrongly, to p8, and the record of the changed checkpoint
      expect(rotation).toMatchObject({ reencrypted: 6, left: 0, refused: 5 })
      expect(rotation.damaged).toEqual([
        { table: 'user_api_keys', key: ['u1', 'p4'], keyId: OLD_ID, problem: 'malformed' },
        {
          table: 'checkpoint_blobs',
          key: ['u1', 'changed', expect.any(String)],
          keyId: OLD_ID,
          problem: 'changed',
        },
      ])
      expect(rotation.counts.filter(({ is }) => is !== 'first')).toEqual(
        [
          { table: 'user_api_keys', keyId: OLD_ID, rows: 1, is: 'ring' },
          { table: 'user_api_keys', keyId: LOST_ID, rows: 2, is: 'missing' },
          { table: 'user_api_keys', keyId: null, rows: 1, is: 'missing' },
          { table: 'checkpoints', keyId: LOST_ID, rows: 1, is: 'missing' },
          { table: 'checkpoint_blobs', keyId: OLD_ID, rows: 1, is: 'ring' },
          { table: 'checkpoint_blobs', keyId: LOST_ID, rows: 1, is: 'missing' },
        ].toSorted((a, b) => TABLES.indexOf(a.table) - TABLES.indexOf(b.table)),
      )
      expect(JSON.stringify(rotation)).not.toMatch(/secret|no token/)
      for (const i of [1, 2]) expect(await resolve(lost, `p${i}`)).toBe(`secret ${i}`)
      // with the key back all are taken
      expect(await rotate({}, ringOf(NEW, OLD, LOST))).toMatchObject({ reencrypted: 5, left: 0, refused: 2 })
    })

    test('a dry run decrypts everything and writes nothing', async () => {
      await put(before, 'openai', 'secret')
      await put(before, 'anthropic', 'secret')
      await setKey('anthropic', { token: 'no token' })
      const rows = () =>
        opened.database.db.selectFrom('user_api_keys').selectAll().orderBy('provider').execute()
      const stored = await rows()
      expect(await rotate({ dryRun: true })).toMatchObject({
        reencrypted: 1,
        refused: 1,
        damaged: [{ key: ['u1', 'anthropic'] }],
        counts: [{ table: 'user_api_keys', keyId: OLD_ID, rows: 2, is: 'ring' }],
      })
      expect(await rows()).toEqual(stored)
    })

    test('what is asked to stop stops after its batch, and the next one goes on', async () => {
      for (let i = 0; i < 20; i++) await put(before, `p${i}`, `secret ${i}`)
      const controller = new AbortController()
      const onProgress = (done: number) => done >= 6 && controller.abort()
      const first = await rotate({ batch: 3, signal: controller.signal, onProgress })
      expect(first).toMatchObject({ reencrypted: 6, left: 14 })
      for (let i = 0; i < 20; i++) expect(await resolve(during, `p${i}`)).toBe(`secret ${i}`)
      expect(await rotate({ batch: 3 })).toMatchObject({ reencrypted: 14, left: 0 })
      expect(await keyIds('user_api_keys')).toEqual([NEW_ID])
    })

    test('no key that is stored meanwhile is lost, whichever key encrypts it', async () => {
      const providers = Array.from({ length: 12 }, (_, i) => `p${i}`)
      for (const provider of providers) await put(before, provider, `${provider} at first`)
      const last = new Map<string, string>()
      let running = true
      // one writer a provider, so that what it stored last is what must be there
      const writers = providers.map(async (provider, i) => {
        // the others have the new key first already
        const old = await openServices(opened.database, { keys: fixedKeys([OLD, NEW]) })
        for (let n = 0; running || n === 0; n++) {
          const secret = `${provider} ${n} ${randomUUID()}`
          await put(i % 2 === 0 ? during : old, provider, secret)
          last.set(provider, secret)
          expect(await resolve(during, provider)).toBe(secret)
        }
      })
      const rotations = []
      try {
        for (let i = 0; i < 3; i++)
          rotations.push(...(await Promise.all([rotate({ batch: 2 }), rotate({ batch: 5 })])))
      } finally {
        running = false
        await Promise.all(writers)
      }
      expect(rotations.reduce((sum, { reencrypted }) => sum + reencrypted, 0)).toBeGreaterThanOrEqual(12)
      for (const provider of providers) expect(await resolve(during, provider)).toBe(last.get(provider))
      await rotate()
      for (const provider of providers) expect(await resolve(after, provider)).toBe(last.get(provider))
    })

    test('a thread goes on while its state is encrypted anew', async () => {
      const [old, live] = [saverOf(OLD), saverOf(NEW, OLD)]
      const messages = Array.from({ length: 60 }, (_, i) => ({ text: `message ${i} `.repeat(20) }))
      let config = await storeState(old, { messages })
      await old.putWrites(config, [['x', 'pending '.repeat(50)]], 'task')
      let running = true
      const rotating = (async () => {
        while (running) await rotate({ batch: 3 })
      })()
      let values = messages
      const goOn = async (step: number) => {
        const tuple = await live.getTuple(AT)
        values = [...messagesOf(tuple), { text: `new ${step} `.repeat(30) }]
        config = await storeState(live, { messages: values }, tuple?.config)
        await live.putWrites(config, [['x', `pending ${step} `.repeat(50)]], 'task')
        if (step === 5) await live.copyThread('t', 'copy')
        if (step === 10) await live.prune({ threadIds: ['t'] })
      }
      try {
        for (let step = 0; step < 15; step++) await goOn(step)
      } finally {
        running = false
        await rotating
      }
      await rotate()
      for (const table of TABLES.slice(2)) expect(await keyIds(table)).toEqual([NEW_ID])
      const tuple = await saverOf(NEW).getTuple(AT)
      expect(messagesOf(tuple)).toEqual(values)
      expect(values).toHaveLength(75)
      expect(tuple?.pendingWrites?.at(-1)?.[2]).toBe('pending 14 '.repeat(50))
      const copy = await saverOf(NEW).getTuple({ configurable: { thread_id: 'copy', checkpoint_ns: '' } })
      expect(messagesOf(copy)).toHaveLength(66)
      // one that read it before has nothing in mind that is not so any more
      expect(await live.getTuple(AT)).toEqual(tuple)
    })

    test('large values are taken a few at a time, and what is not encrypted stays so', async () => {
      const values = Object.fromEntries(
        ['a', 'b', 'c'].map((name) => [name, randomBytes(5_000_000).toString('base64')]),
      )
      await storeState(saverOf(OLD), values)
      const plain = new ThreadbaseSaver(opened.database, { userId: 'plain' })
      await storeState(plain, { text: 'plain '.repeat(100) })
      const told: number[] = []
      await rotate({ onProgress: (done) => void told.push(done) })
      expect(new Set(told)).toEqual(new Set([0, 1, 2, 3, 4]))
      expect((await saverOf(NEW).getTuple(AT))?.checkpoint.channel_values).toEqual(values)
      expect(await plain.getTuple(AT)).toMatchObject({
        checkpoint: { channel_values: { text: 'plain '.repeat(100) } },
      })
    })

    test.skipIf(engine.name === 'pglite')('a row that somebody holds is not waited for', async () => {
      await put(before, 'held', 'secret')
      await put(before, 'free', 'secret')
      let rotation: Awaited<ReturnType<typeof rotate>> | undefined
      await opened.database.db.transaction().execute(async (tx) => {
        await sql`select from ${sql.table('user_api_keys')} where provider = 'held' for update`.execute(tx)
        rotation = await rotate()
      })
      expect(rotation).toMatchObject({ reencrypted: 1, left: 1, refused: 0 })
      expect(await rotate()).toMatchObject({ reencrypted: 1, left: 0 })
    })
  })
}
