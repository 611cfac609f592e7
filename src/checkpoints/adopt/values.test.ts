import { DeltaSnapshot, type SerializerProtocol } from '@langchain/langgraph-checkpoint'
import { PostgresSaver } from '@langchain/langgraph-checkpoint-postgres'
import { describe, expect, test } from 'vitest'
import {
  adopt,
  checkpointOf,
  hasPostgres,
  listAll,
  opened,
  own,
  ownRows,
  peer,
  pool,
  put,
  schema,
  USER,
  useStockTables,
} from '../../../test/stock-checkpoints.ts'
import { ThreadbaseSaver } from '../service.ts'

/** The peer gives bytes as its driver does. */
const plainBytes = (value: unknown): unknown => {
  if (value instanceof Uint8Array) return [...value]
  if (Array.isArray(value)) return value.map(plainBytes)
  if (typeof value !== 'object' || Object.getPrototypeOf(value ?? 0) !== Object.prototype) return value
  return Object.fromEntries(Object.entries(value as object).map(([key, item]) => [key, plainBytes(item)]))
}

const deep = (levels: number): unknown => JSON.parse(`${'['.repeat(levels)}${']'.repeat(levels)}`)

const ODD: Record<string, unknown> = {
  empty: [],
  'one small': [1],
  small: Array.from({ length: 300 }, (_, i) => i % 7),
  equal: Array.from(
    { length: 700 },
    () => 'the same text, longer than what is packed with its neighbours in one value',
  ),
  mixed: Array.from({ length: 90 }, (_, i) => (i % 3 === 0 ? i : { text: `${i} `.repeat(40) })),
  'lists of lists': [[], [[]], ['x'.repeat(200)], [undefined]],
  text: 'é\u{1f600}\0\ud800"\\\n'.repeat(50),
  'list of text': ['é\u{1f600}\0\ud800"\\\n'.repeat(50), '\0', 'x'.repeat(9_000)],
  map: new Map([['k', { a: [1, 'y'.repeat(300)] }]]),
  set: new Set(['z'.repeat(300)]),
  bytes: new Uint8Array(Array.from({ length: 3_000 }, (_, i) => i % 256)),
  'no bytes': new Uint8Array(0),
  snapshot: new DeltaSnapshot(Array.from({ length: 50 }, (_, i) => ({ text: `${i} `.repeat(40) }))),
  'small snapshot': new DeltaSnapshot(['a']),
  'like a snapshot': { lc: 3, type: 'delta_snapshot', value: ['x'.repeat(200)] },
  nothing: null,
  numbers: [
    0.1 + 0.2,
    1e300,
    -1.5e-9,
    Number('12345678901234567890'),
    ...Array.from({ length: 40 }, (_, i) => i / 3),
  ],
  deep: deep(400),
  '__proto__ " é': ['x'.repeat(300)],
}

describe.skipIf(!hasPostgres)('values of a stock checkpointer, taken over,', () => {
  useStockTables()

  test('values of any form are what they were, and equal ones are stored once', async () => {
    let parent: string | undefined
    for (let step = 1; step <= 3; step++) {
      const checkpoint = checkpointOf({ ...ODD, step }, step)
      await put(peer, 'odd', checkpoint, parent, {
        text: 'é\u{1f600}\uffff0000"\\',
        nested: { n: [null, 0.1, -5] },
      })
      await peer.putWrites(
        { configurable: { thread_id: 'odd', checkpoint_ns: '', checkpoint_id: checkpoint.id } },
        [...Object.entries(ODD), ['__error__', { message: 'x' }]],
        `task ${step}`,
      )
      parent = checkpoint.id
    }
    await adopt()
    const expected = await listAll(peer, 'odd')
    expect(Object.keys(expected[0]?.checkpoint.channel_values ?? {})).toHaveLength(
      Object.keys(ODD).length + 1,
    )
    expect((await listAll(own, 'odd')).map(plainBytes)).toEqual(expected.map(plainBytes))
    const [, blobs] = await ownRows()
    const once = JSON.stringify(ODD.equal).slice(2, 60)
    const texts = blobs?.map(({ data }) => String(data)).filter((text) => text.includes(once))
    expect(texts?.length).toBeLessThan(2)
  })

  test('a list is stored as the checkpointer stores it: the next step adds what is new', async () => {
    const messages = Array.from({ length: 400 }, (_, i) => ({ role: 'user', content: `${i} `.repeat(30) }))
    const last = checkpointOf({ messages }, 399)
    for (let n = 1; n < 20; n++)
      await put(peer, 't', checkpointOf({ messages: messages.slice(0, 20 * n) }, n))
    await put(peer, 't', last)
    await adopt()
    const [, before = []] = await ownRows()
    expect(before.filter(({ refs }) => refs === null)).toHaveLength(400)
    const saver = new ThreadbaseSaver(opened.database, USER)
    await put(saver, 't', checkpointOf({ messages }, 400), last.id)
    expect((await ownRows())[1]).toEqual(before)
    await put(
      saver,
      't',
      checkpointOf({ messages: [...messages, { role: 'user', content: 'new '.repeat(30) }] }, 401),
      last.id,
    )
    expect((await ownRows())[1]?.length).toBeLessThan(before.length + 6)
    await saver.prune({ threadIds: ['t'], keepLatest: 1 })
    expect((await listAll(saver, 't'))[0]?.checkpoint.channel_values.messages).toHaveLength(401)
  })

  test('lists of all lengths become the very nodes that the checkpointer makes', async () => {
    const texts = (count: number, of: (i: number) => number) =>
      Array.from({ length: count }, (_, i) => ({ text: `${of(i)} `.padEnd(100, 'é"') }))
    const values = {
      long: texts(6_000, (i) => i),
      equal: texts(1_000, () => 1),
      repeated: texts(3_000, (i) => i % 3),
      one: texts(1, (i) => i),
      exact: texts(128, () => 7),
      more: texts(129, () => 7),
      'others equal': texts(400, () => 4),
      snapshot: new DeltaSnapshot(texts(200, (i) => i)),
      object: { a: texts(9, (i) => i) },
      text: 'x'.repeat(500),
    }
    await put(peer, 'taken', checkpointOf(values, 1))
    await put(own, 'put', checkpointOf(values, 1))
    await adopt()
    const [, blobs = []] = await ownRows()
    const rowsOf = (thread: string) =>
      blobs
        .filter(({ thread_id }) => thread_id === thread)
        .map(({ hash, type, refs }) => ({ hash, type, refs }))
    const byHash = (a: { hash: string }, b: { hash: string }) => (a.hash < b.hash ? -1 : 1)
    expect(rowsOf('taken').sort(byHash)).toEqual(rowsOf('put').sort(byHash))
  })

  test('old formats, values in the checkpoint itself, and what another language wrote', async () => {
    const [parent, child] = [
      checkpointOf({ a: 1 }, 1, { v: 1 }),
      checkpointOf({ a: 2 }, 2, { v: 1, pending_sends: [] }),
    ]
    await put(peer, 'old', parent)
    const at = { configurable: { thread_id: 'old', checkpoint_ns: '', checkpoint_id: parent.id } }
    await peer.putWrites(at, [['__pregel_tasks', { node: 'n', args: { x: 1 } }]], 'task')
    await put(peer, 'old', child, parent.id)
    const inside = checkpointOf({ list: ['x'.repeat(300)] }, 3)
    await put(peer, 'inside', inside)
    await pool.query(
      `update ${schema}.checkpoints set checkpoint = jsonb_set(jsonb_set(checkpoint, '{channel_values}', $1), '{channel_versions,n}', '3'),
              parent_checkpoint_id = '' where thread_id = 'inside'`,
      [JSON.stringify({ n: 5, text: 'é"', none: null, list: 'not this' })],
    )
    await pool.query(
      `update ${schema}.checkpoints set checkpoint = checkpoint - 'versions_seen' - 'ts' where thread_id = 'old'`,
    )
    await pool.query(`alter table ${schema}.checkpoint_writes add task_path text default '~x'`)
    await pool.query(`insert into ${schema}.checkpoint_migrations values (99)`)
    await pool.query(
      `insert into ${schema}.checkpoint_blobs values ('inside', '', 'bad', '7', 'json', '\\x5bff00')`,
    )
    const { warnings } = await adopt()
    expect(warnings).toEqual([expect.stringContaining('migration 99')])
    const withoutSends = (all: Awaited<ReturnType<typeof listAll>>) =>
      all.filter(({ parent }) => parent !== undefined)
    expect(withoutSends(await listAll(own, 'old'))).toEqual(withoutSends(await listAll(peer, 'old')))
    const tuple = await own.getTuple({ configurable: { thread_id: 'inside' } })
    expect(tuple?.checkpoint.channel_values).toEqual({
      n: 5,
      text: 'é"',
      none: null,
      list: ['x'.repeat(300)],
    })
    expect(tuple?.parentConfig).toBeUndefined()
    const { rows } = await pool.query(`select task_path from ${opened.database.schema}.checkpoint_writes`)
    expect(rows).toEqual([{ task_path: '~x' }])
  })

  test("a serializer of one's own reads what it wrote, when values are left whole", async () => {
    const textOf = (data: Uint8Array | string) =>
      typeof data === 'string' ? data : Buffer.from(data).toString()
    // a list to look at, which is none; metadata must be an object for the peer
    const turned: SerializerProtocol = {
      dumpsTyped: async (data) => {
        const text = JSON.stringify(data)
        return [
          'json',
          Buffer.from(text.startsWith('{"source"') ? text : JSON.stringify([...Buffer.from(text)])),
        ]
      },
      loadsTyped: async (_type, data) => {
        const text = textOf(data)
        return JSON.parse(text.startsWith('[') ? Buffer.from(JSON.parse(text)).toString() : text)
      },
    }
    const theirs = new PostgresSaver(pool, turned, { schema })
    const values = { small: 1, list: [{ a: 'x'.repeat(200) }, 2], text: 'é'.repeat(300) }
    const checkpoint = checkpointOf(values, 1)
    const meta = { source: 'loop' as const, step: 1, parents: {} }
    const at = { configurable: { thread_id: 'own', checkpoint_ns: '' } }
    await theirs.put(at, checkpoint, meta, checkpoint.channel_versions)
    await adopt({ wholeValues: true })
    const tuple = await new ThreadbaseSaver(opened.database, { ...USER, serde: turned }).getTuple(at)
    expect(tuple?.checkpoint.channel_values).toEqual(values)
  })

  test('what PostgreSQL compressed stays compressed', async () => {
    const text = 'the same words again and again '.repeat(3_000)
    for (let n = 1; n <= 3; n++)
      await put(peer, 't', checkpointOf({ object: { text, n }, list: [{ text: `${text}${n}` }, n] }, n))
    const { bytesBefore, bytesAfter } = await adopt()
    expect(bytesBefore).toBeLessThan(text.length)
    expect(bytesAfter).toBeLessThan(1.1 * bytesBefore)
    expect(await listAll(own, 't')).toEqual(await listAll(peer, 't'))
  })
})
