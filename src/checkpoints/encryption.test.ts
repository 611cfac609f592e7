import { randomBytes } from 'node:crypto'
import {
  type Checkpoint,
  type CheckpointMetadata,
  JsonPlusSerializer,
  uuid6,
} from '@langchain/langgraph-checkpoint'
import { sql } from 'kysely'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { engines, type TestDatabase } from '../../test/harness.ts'
import { readKey } from '../core/key-ring.ts'
import { createCodecs } from './codec.ts'
import { type SaverOptions, ThreadbaseSaver } from './service.ts'

const [OLD, NEW] = [randomBytes(32).toString('base64'), randomBytes(32).toString('base64url')]
const META: CheckpointMetadata = { source: 'loop', step: 0, parents: {} }
const SECRET = 'the patient said '.repeat(500)
const VALUES = {
  small: 'the patient',
  list: [{ content: SECRET }, 'the patient', { content: 'the patient' }],
  text: SECRET,
}
const AT = { configurable: { thread_id: 't', checkpoint_ns: '' } }

const checkpointOf = (channel_values: Record<string, unknown>): Checkpoint => ({
  v: 4,
  id: uuid6(0),
  ts: new Date().toISOString(),
  channel_values,
  channel_versions: Object.fromEntries(Object.keys(channel_values).map((name) => [name, 1])),
  versions_seen: {},
})

describe('codecs', () => {
  test('a key must be 32 bytes, and is never repeated in an error', () => {
    for (const keys of [[], [''], ['short'], [`${OLD}!`], [OLD, 'x'.repeat(20)]]) {
      expect(() => createCodecs({ keys })).toThrow(expect.objectContaining({ code: 'invalid_input' }))
    }
    expect(() => createCodecs({ keys: ['topsecret'] })).not.toThrow(/topsecret/)
  })

  test('equal content of two users has addresses and bytes that differ', () => {
    const codecOf = createCodecs({ keys: [OLD] })
    const [a, b] = [codecOf('a'), codecOf('b')]
    const data = Buffer.from(SECRET)
    expect(a.ofValue('json', data)).toBe(codecOf('a').ofValue('json', data))
    expect(a.ofValue('json', data)).not.toBe(b.ofValue('json', data))
    expect(a.ofNode(['x'])).not.toBe(b.ofNode(['x']))
    const { codec, keyId, data: stored } = a.encode(data, true, 'here')
    const row = { codec, keyId, text: null, data: Buffer.from(stored) }
    expect(a.decode(row, 'here').toString()).toBe(SECRET)
    expect(() => a.decode(row, 'there')).toThrow(/changed or moved/)
    expect(() => b.decode(row, 'here')).toThrow(/changed or moved/)
    for (const at of [0, 13, stored.length - 1]) {
      const changed = Buffer.from(stored)
      changed[at] = (changed[at] as number) ^ 1
      expect(() => a.decode({ ...row, data: changed }, 'here')).toThrow(/changed or moved/)
    }
    for (const length of [0, 5, 20]) {
      expect(() => a.decode({ ...row, data: Buffer.from(stored.subarray(0, length)) }, 'here')).toThrow(
        /changed or moved/,
      )
    }
  })
})

for (const engine of engines) {
  describe.skipIf(!engine.available)(`encrypted values on ${engine.name}`, () => {
    let opened: TestDatabase
    beforeAll(async () => {
      opened = await engine.open()
    })
    afterAll(() => opened?.close())
    const saverOf = (userId: string, options: SaverOptions = {}) =>
      new ThreadbaseSaver(opened.database, { userId, ...options })
    const store = async (saver: ThreadbaseSaver) => {
      const config = await saver.put(AT, checkpointOf(VALUES), META, { small: 1, list: 1, text: 1 })
      await saver.putWrites(config, [['x', VALUES]], 'task')
      return config
    }
    const EXPECTED = { checkpoint: { channel_values: VALUES }, pendingWrites: [['task', 'x', VALUES]] }
    const stored = async (userId: string) => {
      const { rows } = await sql<{ all: string }>`
        select string_agg(x.t, '|') as all from (
          select encode(data, 'escape') as t from ${sql.table('checkpoint_blobs')} where user_id = ${userId} and data is not null
          union all select encode(record, 'escape') from ${sql.table('checkpoints')} where user_id = ${userId}
          union all select encode(data, 'escape') from ${sql.table('checkpoint_writes')} where user_id = ${userId}) x`.execute(
        opened.database.db,
      )
      return rows[0]?.all ?? ''
    }

    const keysOf = async (userId: string) => {
      const { rows } = await sql<{ key: string | null }>`
        select distinct key_id as key from ${sql.table('checkpoint_blobs')} where user_id = ${userId} and data is not null`.execute(
        opened.database.db,
      )
      return rows.map(({ key }) => key)
    }

    test('no value is readable in the database, and all come back', async () => {
      await store(saverOf('plain'))
      expect(await stored('plain')).toContain('the patient')
      const saver = saverOf('a', { encryption: { keys: [OLD] } })
      await store(saver)
      expect((await stored('a')).length).toBeGreaterThan(100)
      expect(await stored('a')).not.toContain('the patient')
      expect(await saverOf('a', { encryption: { keys: [OLD] } }).getTuple(AT)).toMatchObject(EXPECTED)
      await saver.copyThread('t', 'copy')
      expect(await saver.getTuple({ configurable: { thread_id: 'copy' } })).toMatchObject(EXPECTED)
    })

    test('the first key encrypts, all decrypt; without its key a value is unavailable', async () => {
      await store(saverOf('b', { encryption: { keys: [OLD] } }))
      const both = saverOf('b', { encryption: { keys: [NEW, OLD] } })
      const tuple = await both.getTuple(AT)
      expect(tuple).toMatchObject(EXPECTED)
      // what is stored again from then on is under the new key
      const values = {
        ...tuple?.checkpoint.channel_values,
        list: [...VALUES.list, { content: SECRET.slice(5) }],
      }
      const config = await both.put(tuple?.config ?? AT, checkpointOf(values), META, { list: 2 })
      await both.prune()
      expect(await keysOf('b')).toEqual([readKey(NEW)?.id])
      expect(await both.getTuple(config)).toMatchObject({ checkpoint: { channel_values: values } })
      await expect(saverOf('b', { encryption: { keys: [OLD] } }).getTuple(AT)).rejects.toMatchObject({
        code: 'unavailable',
      })
      await expect(saverOf('b').getTuple(AT)).rejects.toMatchObject({ code: 'unavailable' })
    })

    test('values from before there was encryption are refused, unless they are allowed', async () => {
      await store(saverOf('c'))
      const keys = [OLD]
      await expect(saverOf('c', { encryption: { keys } }).getTuple(AT)).rejects.toMatchObject({
        code: 'forbidden',
      })
      const allowed = saverOf('c', { encryption: { keys, allowPlaintext: true } })
      const tuple = await allowed.getTuple(AT)
      expect(tuple).toMatchObject(EXPECTED)
      // a thread that goes on leaves them behind
      const { channel_values } = tuple?.checkpoint ?? checkpointOf({})
      await allowed.put(tuple?.config ?? AT, checkpointOf(channel_values), META, {})
      await allowed.prune()
      expect(await keysOf('c')).toEqual([readKey(OLD)?.id])
      expect(await saverOf('c', { encryption: { keys } }).getTuple(AT)).toMatchObject({
        checkpoint: EXPECTED.checkpoint,
      })
    })

    test("an application's own serializer is used for every value", async () => {
      const json = new JsonPlusSerializer()
      const reversed = {
        dumpsTyped: async (value: unknown): Promise<[string, Uint8Array]> => {
          const [type, data] = await json.dumpsTyped(value)
          return [`reversed ${type}`, Uint8Array.from(data).reverse()]
        },
        loadsTyped: (type: string, data: Uint8Array | string) =>
          json.loadsTyped(type.slice(9), Uint8Array.from(Buffer.from(data as Uint8Array)).reverse()),
      }
      for (const encryption of [undefined, { keys: [OLD] }]) {
        const user = `serde ${encryption === undefined}`
        await store(saverOf(user, { serde: reversed, encryption }))
        expect(await stored(user)).not.toContain('the patient')
        expect(await saverOf(user, { serde: reversed, encryption }).getTuple(AT)).toMatchObject(EXPECTED)
      }
    })
  })
}
