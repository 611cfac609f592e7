import { readFile, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { sql } from 'kysely'
import { describe, expect, test } from 'vitest'
import { readKey } from '../../src/core/key-ring.ts'
import { newEncryptionKey } from '../../src/credentials/service.ts'
import { openThreadbase } from '../../src/open-threadbase.ts'
import type { Threadbase } from '../../src/threadbase.ts'
import { runChild } from '../child.ts'
import { newSchemaName, postgresUrl } from '../harness.ts'
import {
  cleanUpAfterAll,
  type Environment,
  newDataDir,
  runHere,
  start,
  stores,
  temporaryDirectory,
} from './processes.ts'

cleanUpAfterAll()

const BY = { userId: 'tests', via: 'library' } as const
const ROWS = 300
const SECRET = 'sk-a-secret-of-a-user'
const idOf = (key: string) => String(readKey(key)?.id)

const put = (tb: Threadbase, userId: string, provider: string, apiKey: string) =>
  tb.credentials.apiKeys.put({ userId }, BY, provider, { apiKey })

async function open<T>(env: Environment, work: (tb: Threadbase) => Promise<T>): Promise<T> {
  const tb = await openThreadbase({ env })
  try {
    return await work(tb)
  } finally {
    await tb.close()
  }
}

/** Secrets of some users, and an encrypted thread. */
async function fill(env: Environment): Promise<void> {
  await open({ ...env, CHECKPOINT_ENCRYPTION: 'true' }, async (tb) => {
    const all = Array.from({ length: ROWS }, (_, i) => i)
    await Promise.all(all.map((i) => put(tb, `u${i % 7}`, `p${i}`, `secret ${i}`)))
    for (let i = 0; i < 20; i++)
      await tb.variables.create({ userId: 'u' }, BY, { name: `n${i}`, value: `value ${i}` })
    const checkpoint = {
      v: 4,
      id: '1efc8b5e-7a3c-6d90-8000-000000000001',
      ts: '2026-01-01T00:00:00.000Z',
      channel_values: { list: Array.from({ length: 30 }, (_, i) => ({ text: `element ${i} `.repeat(20) })) },
      channel_versions: { list: 1 },
      versions_seen: {},
    }
    const at = { configurable: { thread_id: 't', checkpoint_ns: '' } }
    const metadata = { source: 'input', step: -1, parents: {} } as const
    await tb.forUser('u').checkpointer.put(at, checkpoint, metadata, { list: 1 })
  })
}

async function requireAll(env: Environment): Promise<void> {
  await open({ ...env, CHECKPOINT_ENCRYPTION: 'true' }, async (tb) => {
    for (let i = 0; i < ROWS; i++)
      expect(await tb.credentials.forUser(`u${i % 7}`).resolve(`p${i}`)).toBe(`secret ${i}`)
    for (let i = 0; i < 20; i++)
      expect(await tb.variables.resolve({ userId: 'u' }, `n${i}`)).toBe(`value ${i}`)
    const tuple = await tb.forUser('u').checkpointer.getTuple({ configurable: { thread_id: 't' } })
    expect(tuple?.checkpoint.channel_values.list).toHaveLength(30)
  })
}

type Listed = { key_id: string | null; is: string; rows: Record<string, number> }[]

const totalOf = (listed: Listed, keyId: string) =>
  Object.values(listed.find(({ key_id }) => key_id === keyId)?.rows ?? {}).reduce((sum, n) => sum + n, 0)

const listKeys = async (env: Environment): Promise<Listed> => {
  const { stdout, stderr } = await runHere(['keys', 'list', '--json'], env)
  expect(stderr).toBe('')
  return JSON.parse(stdout).keys
}

for (const store of stores) {
  describe.skipIf(!store.available)(`threadbase keys on ${store.name}`, () => {
    test('rotate that is killed again and again ends with every secret under the new key', {
      timeout: 180_000,
    }, async () => {
      const [old, young] = [newEncryptionKey(), newEncryptionKey()]
      const env = await store.newEnv()
      await fill({ ...env, ENCRYPTION_KEY: old })
      const both = { ...env, ENCRYPTION_KEY: `${young},${old}` }
      const before = totalOf(await listKeys(both), idOf(old))
      let done = 0
      for (let kill = 0; kill < 2; kill++) {
        const child = runChild('rotate-keys.ts', { env: both, batch: 7 })
        const lines = 2 + Math.floor(Math.random() * 8)
        for (let n = 0; n < lines; n++)
          expect(await child.nextLine()).toMatchObject({ done: expect.any(Number) })
        await delay(Math.random() * 5)
        await child.kill()
        const told = (await child.rest()) as { left?: number }[]
        expect(told.some(({ left }) => left !== undefined)).toBe(false)
        const listed = await listKeys(both)
        expect(totalOf(listed, idOf(young)) + totalOf(listed, idOf(old))).toBe(before)
        expect(totalOf(listed, idOf(young))).toBeGreaterThan(done)
        done = totalOf(listed, idOf(young))
      }
      expect(done).toBeLessThan(before)
      await requireAll(both)
      const { code, stdout, stderr } = await runHere(['keys', 'rotate'], both)
      expect([code, stderr]).toEqual([0, ''])
      expect(stdout).toMatch(new RegExp(`^encrypted ${before - done} rows with key ${idOf(young)} in `))
      expect(stdout).toMatch(/key +user_api_keys +variables +checkpoints +checkpoint_blobs\n/)
      expect(stdout).toMatch(new RegExp(`${idOf(young)} +300 +20 +1 +\\d+ +first: encrypts\n`))
      expect(stdout).toMatch(new RegExp(`${idOf(old)} +0 +0 +0 +0 +decrypts\n$`))
      await requireAll({ ...env, ENCRYPTION_KEY: young })
      const entries = await open(both, (tb) => tb.audit.list({ action: 'encryption_key_changed' }))
      expect(entries.items).toMatchObject([{ actorId: 'operator', via: 'cli', target: `key ${idOf(young)}` }])
    })
  })
}

describe('threadbase keys', () => {
  test('generate prints a key, another one each time', async () => {
    const printed = await Promise.all([1, 2].map(() => runHere(['keys', 'generate'])))
    for (const { code, stdout, stderr } of printed) {
      expect([code, stderr]).toEqual([0, ''])
      expect(readKey(stdout.trimEnd())).toBeDefined()
      expect(stdout).toMatch(/^[\w-]{43}=\n$/)
    }
    expect(printed[0]?.stdout).not.toBe(printed[1]?.stdout)
  })

  test('keys that are missing and rows that are damaged are named, and end with 1', async () => {
    const [own, lost] = [newEncryptionKey(), newEncryptionKey()]
    // on PostgreSQL it is quick
    const env =
      (await stores
        .filter(({ available }) => available)
        .at(-1)
        ?.newEnv()) ?? {}
    await open({ ...env, ENCRYPTION_KEY: lost }, (tb) => put(tb, 'u', 'openai', SECRET))
    await open({ ...env, ENCRYPTION_KEY: own }, async (tb) => {
      await put(tb, 'u', 'anthropic', SECRET)
      await put(tb, 'u', 'damaged', SECRET)
      const table = sql.table('user_api_keys')
      await sql`update ${table} set token = ${SECRET} where provider = 'damaged'`.execute(tb.database.db)
    })
    const young = newEncryptionKey()
    const both = { ...env, ENCRYPTION_KEY: `${young},${own}` }
    const listed = await runHere(['keys', 'list'], both)
    expect(listed.code).toBe(1)
    expect(listed.stdout).toMatch(new RegExp(`${idOf(lost)} +1 +not among the keys`))
    for (const dryRun of [['--dry-run'], []]) {
      const { code, stdout } = await runHere(['keys', 'rotate', ...dryRun], both)
      expect(code).toBe(1)
      expect(stdout).toContain('1 row with key')
      expect(stdout).toContain(`not readable: user_api_keys ["u","damaged"] (key ${idOf(own)})`)
      expect(stdout).toMatch(new RegExp(`${idOf(lost)} +1 +not among the keys`))
      expect(stdout).not.toContain(SECRET)
    }
    const json = await runHere(['keys', 'rotate', '--json'], both)
    expect(json.code).toBe(1)
    expect(JSON.parse(json.stdout)).toMatchObject({
      reencrypted: 0,
      damaged: [{ table: 'user_api_keys', key: ['u', 'damaged'], key_id: idOf(own), problem: 'malformed' }],
      keys: [
        { key_id: idOf(young), is: 'first', rows: { user_api_keys: 1 } },
        { key_id: idOf(own), is: 'ring', rows: { user_api_keys: 1 } },
        { key_id: idOf(lost), is: 'missing', rows: { user_api_keys: 1 } },
      ],
      interrupted: false,
      dry_run: false,
    })
  })

  test('of the embedded store are in its file, and changed there', async () => {
    const dataDir = await newDataDir()
    const env = { DATA_DIR: dataDir }
    const file = join(dataDir, 'encryption.key')
    for (const command of ['list', 'rotate']) {
      const { code, stdout } = await runHere(['keys', command], env)
      expect(code).toBe(0)
      expect(stdout).toContain('no key yet')
    }
    await expect(stat(file)).rejects.toMatchObject({ code: 'ENOENT' })
    await open(env, (tb) => put(tb, 'u', 'openai', SECRET))
    const old = (await readFile(file, 'utf8')).trim()
    const young = newEncryptionKey()
    await writeFile(file, `${young}\n${old}\n`)
    const { code, stdout } = await runHere(['keys', 'rotate'], env)
    expect([code, stdout]).toEqual([0, expect.stringContaining(`encrypted 1 row with key ${idOf(young)}`)])
    await writeFile(file, `${young}\n`)
    expect(await open(env, (tb) => tb.credentials.forUser('u').resolve('openai'))).toBe(SECRET)
    await writeFile(file, `${old}\n`)
    expect((await runHere(['keys', 'list'], env)).code).toBe(1)
    await expect(open(env, (tb) => tb.credentials.forUser('u').resolve('openai'))).rejects.toMatchObject({
      code: 'unavailable',
      message: expect.stringContaining(idOf(young)),
    })
  })

  test.each([['list'], ['rotate']])('%s without a store makes none', async (command) => {
    const dataDir = await temporaryDirectory()
    const { code, stderr } = await runHere(['keys', command], { DATA_DIR: join(dataDir, 'none') })
    expect([code, stderr]).toEqual([3, expect.stringContaining('there is no embedded store')])
  })

  test.each([['0'], ['-1'], ['x'], ['1.5'], ['10001'], ['']])('--batch %j is refused', async (batch) => {
    const { code, stderr } = await runHere(['keys', 'rotate', `--batch=${batch}`], { DATA_DIR: '/nowhere' })
    expect([code, stderr]).toEqual([2, expect.stringContaining('--batch')])
  })
})

describe.skipIf(postgresUrl === null)('threadbase keys on PostgreSQL', () => {
  const newEnv = (): Environment => ({ DATABASE_URL: String(postgresUrl), DATABASE_SCHEMA: newSchemaName() })

  test.each([['list'], ['rotate']])('%s without ENCRYPTION_KEY says what is missing', async (command) => {
    const { code, stdout, stderr } = await runHere(['keys', command], newEnv())
    expect([code, stdout]).toEqual([7, ''])
    expect(stderr).toContain('ENCRYPTION_KEY')
  })

  test('rotate that is interrupted says so, keeps what is done, and goes on the next time', async () => {
    const [old, young] = [newEncryptionKey(), newEncryptionKey()]
    const env = newEnv()
    await fill({ ...env, ENCRYPTION_KEY: old })
    const both = { ...env, ENCRYPTION_KEY: `${young},${old}` }
    await open(both, async (tb) => {
      const doneOf = async () =>
        tb.database.db.selectFrom('user_api_keys').select('token').where('key_id', '=', idOf(young)).execute()
      const child = start(['keys', 'rotate', '--batch', '1', '--json'], both)
      while ((await doneOf()).length < 5) await delay(10)
      child.kill('SIGINT')
      expect(await child.exited).toEqual({ code: 130, signal: null })
      const { interrupted, reencrypted, left, keys } = JSON.parse(child.stdout())
      expect(interrupted).toBe(true)
      expect(reencrypted).toBeGreaterThanOrEqual(5)
      expect(reencrypted).toBeLessThan(ROWS)
      expect(totalOf(keys, idOf(young))).toBe(reencrypted)
      expect(totalOf(keys, idOf(old))).toBe(left)
    })
    const { code, stdout } = await runHere(['keys', 'rotate', '--json'], both)
    expect([code, JSON.parse(stdout).left]).toEqual([0, 0])
    await requireAll({ ...env, ENCRYPTION_KEY: young })
  })
})
