import { randomBytes } from 'node:crypto'
import { readFile, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type Checkpoint, uuid6 } from '@langchain/langgraph-checkpoint'
import { sql } from 'kysely'
import { afterAll, describe, expect, test } from 'vitest'
import { cleanUpAfterAll, newDataDir, runHere } from '../test/e2e/processes.ts'
import { newSchemaName, postgresUrl } from '../test/harness.ts'
import { parseConfig } from './config.ts'
import { readKey, writeKey } from './core/key-ring.ts'
import { openThreadbase, type ThreadbaseOptions } from './open-threadbase.ts'
import type { Threadbase } from './threadbase.ts'

cleanUpAfterAll()

const newKey = () => writeKey(randomBytes(32))
const SECRET = 'the patient said '.repeat(20)
const AT = { configurable: { thread_id: 't', checkpoint_ns: '' } }

async function put({ forUser }: Threadbase): Promise<string> {
  const checkpoint: Checkpoint = {
    v: 4,
    id: uuid6(0),
    ts: new Date().toISOString(),
    channel_values: { text: SECRET },
    channel_versions: { text: 1 },
    versions_seen: {},
  }
  await forUser('u').checkpointer.put(AT, checkpoint, { source: 'input', step: -1, parents: {} })
  return checkpoint.id
}

const readText = async ({ forUser }: Threadbase, checkpoint_id?: string) =>
  (await forUser('u').checkpointer.getTuple({ configurable: { ...AT.configurable, checkpoint_id } }))
    ?.checkpoint.channel_values.text

const storedIn = async ({ database }: Threadbase) =>
  (
    await sql<{ keyId: string | null; data: Buffer }>`
      select key_id as "keyId", data from ${sql.table('checkpoint_blobs')} where user_id = 'u'`.execute(
      database.db,
    )
  ).rows

describe('ENCRYPTION_KEY and CHECKPOINT_ENCRYPTION', () => {
  test('a ring alone encrypts nothing', () => {
    const [first, second] = [newKey(), newKey()]
    const config = parseConfig({ ENCRYPTION_KEY: ` ${first}, ${second} ` })
    expect(config.encryptionKeys).toEqual([first, second])
    expect(config.checkpoints).toEqual({ encrypted: false, allowPlaintext: false })
    expect(parseConfig({}).encryptionKeys).toBeUndefined()
  })

  test.each([
    ['a key that is none', { ENCRYPTION_KEY: 'hunter2hunter2' }, 'ENCRYPTION_KEY must hold one or more keys'],
    ['a list with one that is none', { ENCRYPTION_KEY: `${newKey()},hunter2` }, 'ENCRYPTION_KEY must hold'],
    ['a list of nothing', { ENCRYPTION_KEY: ',' }, 'ENCRYPTION_KEY must hold one or more keys'],
    [
      'a switch that may be',
      { CHECKPOINT_ENCRYPTION: 'maybe' },
      'CHECKPOINT_ENCRYPTION must be true or false',
    ],
    [
      'encryption of a database with no key for all servers',
      { CHECKPOINT_ENCRYPTION: 'on', DATABASE_URL: 'postgres://u:hunter2@127.0.0.1:1/d' },
      'CHECKPOINT_ENCRYPTION needs ENCRYPTION_KEY where DATABASE_URL is set',
    ],
    [
      'production without a key',
      { NODE_ENV: 'production', DATABASE_URL: 'postgres://u:hunter2@127.0.0.1:1/d' },
      'NODE_ENV=production needs ENCRYPTION_KEY',
    ],
  ])('%s stops the start by the name of the variable, and is not repeated', async (_, env, message) => {
    const { code, stdout, stderr } = await runHere(['serve', '--port', '0'], { DATA_DIR: '/nowhere', ...env })
    expect([code, stdout]).toEqual([2, ''])
    expect(stderr).toContain(`threadbase: ${message}`)
    expect(stderr).not.toContain('hunter2')
  })

  test('on the embedded store a key is made, for its owner alone, when it is first needed', async () => {
    const dataDir = await newDataDir()
    const file = join(dataDir, 'encryption.key')
    await (await openThreadbase({ dataDir })).close()
    await expect(stat(file)).rejects.toMatchObject({ code: 'ENOENT' })
    const env = { CHECKPOINT_ENCRYPTION: 'on' }
    const tb = await openThreadbase({ dataDir, env })
    await put(tb)
    const key = (await readFile(file, 'utf8')).trim()
    expect((await stat(file)).mode & 0o777).toBe(0o600)
    const rows = await storedIn(tb)
    expect(rows.map(({ keyId }) => keyId)).toEqual([readKey(key)?.id])
    for (const { data } of rows) expect(data.includes('patient')).toBe(false)
    await tb.close()
    const again = await openThreadbase({ dataDir, env })
    expect(await readText(again)).toBe(SECRET)
    await again.close()
    await writeFile(file, 'not a key')
    await expect(openThreadbase({ dataDir, env })).rejects.toMatchObject({
      code: 'invalid_input',
      message: expect.stringContaining(file),
    })
  })

  test('keys may be options of the library, before those of the environment', async () => {
    const dataDir = await newDataDir()
    const [own, other] = [newKey(), newKey()]
    const openWith = (key: string) =>
      openThreadbase({ dataDir, encryptionKeys: [key], env: { ENCRYPTION_KEY: other } })
    const tb = await openWith(own)
    await tb.credentials.apiKeys.put({ userId: 'u' }, { userId: 'u', via: 'library' }, 'x', {
      apiKey: SECRET.trim(),
    })
    expect(await tb.credentials.forUser('u').resolve('x')).toBe(SECRET.trim())
    await tb.close()
    const again = await openWith(other)
    await expect(again.credentials.forUser('u').resolve('x')).rejects.toMatchObject({
      code: 'unavailable',
      details: { keyId: readKey(own)?.id },
    })
    await again.close()
    await expect(stat(join(dataDir, 'encryption.key'))).rejects.toMatchObject({ code: 'ENOENT' })
    await expect(openWith('hunter2')).rejects.toMatchObject({ code: 'invalid_input' })
  })

  describe.skipIf(postgresUrl === null)('on PostgreSQL', () => {
    const databaseSchema = newSchemaName()
    const open = (env: Record<string, string>, options: ThreadbaseOptions = {}) =>
      openThreadbase({ databaseUrl: String(postgresUrl), databaseSchema, env, ...options })
    afterAll(async () => {
      const tb = await open({})
      await sql`drop schema ${sql.id(databaseSchema)} cascade`.execute(tb.database.db)
      await tb.close()
    })

    test('the first key encrypts, all decrypt; plaintext is read where that is allowed by name', async () => {
      const [old, young] = [newKey(), newKey()]
      const plain = await open({ ENCRYPTION_KEY: old })
      const plainId = await put(plain)
      expect((await storedIn(plain)).map(({ keyId }) => keyId)).toEqual([null])
      await plain.close()

      const encryption = { CHECKPOINT_ENCRYPTION: 'true' }
      const strict = await open({ ...encryption, ENCRYPTION_KEY: old })
      const oldId = await put(strict)
      expect(await readText(strict, oldId)).toBe(SECRET)
      await expect(readText(strict, plainId)).rejects.toMatchObject({
        code: 'forbidden',
        message: expect.stringContaining('CHECKPOINT_ALLOW_PLAINTEXT'),
      })
      await strict.close()

      const rotated = await open({
        ...encryption,
        ENCRYPTION_KEY: `${young},${old}`,
        CHECKPOINT_ALLOW_PLAINTEXT: 'true',
      })
      const youngId = await put(rotated)
      for (const id of [plainId, oldId, youngId]) expect(await readText(rotated, id)).toBe(SECRET)
      expect(new Set((await storedIn(rotated)).map(({ keyId }) => keyId))).toEqual(
        new Set([null, readKey(old)?.id, readKey(young)?.id]),
      )
      await rotated.close()

      const forgetful = await open({ ...encryption, ENCRYPTION_KEY: young })
      await expect(readText(forgetful, oldId)).rejects.toMatchObject({
        code: 'unavailable',
        message: expect.stringContaining(String(readKey(old)?.id)),
      })
      await forgetful.close()

      const own = await open(
        { ...encryption, ENCRYPTION_KEY: young },
        { checkpoints: { encryption: { keys: [old] } } },
      )
      expect(await readText(own, oldId)).toBe(SECRET)
      await own.close()
    })
  })
})
