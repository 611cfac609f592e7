import { randomBytes } from 'node:crypto'
import { AIMessage, HumanMessage } from '@langchain/core/messages'
import {
  Annotation,
  Command,
  END,
  interrupt,
  MessagesAnnotation,
  Send,
  START,
  StateGraph,
} from '@langchain/langgraph'
import {
  type BaseCheckpointSaver,
  type Checkpoint,
  type CheckpointTuple,
  DeltaSnapshot,
  type SerializerProtocol,
  uuid6,
} from '@langchain/langgraph-checkpoint'
import { PostgresSaver } from '@langchain/langgraph-checkpoint-postgres'
import { PostgresStore } from '@langchain/langgraph-checkpoint-postgres/store'
import pg from 'pg'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { cleanUpAfterAll, run } from '../../../test/e2e/processes.ts'
import { engines, newSchemaName, postgresUrl, type TestDatabase } from '../../../test/harness.ts'
import { ThreadbaseSaver } from '../service.ts'
import { type AdoptOptions, adoptCheckpoints } from './service.ts'

cleanUpAfterAll()

const USER = { userId: 'local' }
const [pglite, postgres] = engines

type Saver = PostgresSaver | ThreadbaseSaver

async function collect<T>(items: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = []
  for await (const item of items) all.push(item)
  return all
}

const plain = ({ config, checkpoint, metadata, parentConfig, pendingWrites }: CheckpointTuple) => ({
  id: config.configurable?.checkpoint_id,
  ns: config.configurable?.checkpoint_ns,
  checkpoint,
  metadata,
  parent: parentConfig?.configurable?.checkpoint_id,
  // the peer sorts by what its database takes for the order of texts
  pendingWrites: pendingWrites?.toSorted(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0)),
})

/** The peer gives bytes as its driver does. */
const plainBytes = (value: unknown): unknown => {
  if (value instanceof Uint8Array) return [...value]
  if (Array.isArray(value)) return value.map(plainBytes)
  if (typeof value !== 'object' || Object.getPrototypeOf(value ?? 0) !== Object.prototype) return value
  return Object.fromEntries(Object.entries(value as object).map(([key, item]) => [key, plainBytes(item)]))
}

const listAll = async (saver: Saver, threadId: string) =>
  (await collect(saver.list({ configurable: { thread_id: threadId } }))).map(plain).sort(byPlace)

const byPlace = (a: { id: string; ns: string }, b: { id: string; ns: string }) =>
  `${a.ns} ${a.id}` < `${b.ns} ${b.id}` ? -1 : 1

/** A loop of answers that asks a person, fans out and has a graph below it. */
function graphOn(checkpointer: unknown) {
  const State = Annotation.Root({
    ...MessagesAnnotation.spec,
    count: Annotation<number>,
    notes: Annotation<string[]>({ reducer: (a, b) => [...a, ...b], default: () => [] }),
  })
  const below = new StateGraph(State)
    .addNode('inner', ({ count }) => ({ notes: [`inner ${count} "\\ \u2028 \u{1f600}`] }))
    .addEdge(START, 'inner')
    .addEdge('inner', END)
    .compile()
  return new StateGraph(State)
    .addNode('answer', ({ messages }) => ({
      messages: [
        new AIMessage({ id: `a${messages.length}`, content: 'an answer of some length '.repeat(9) }),
      ],
      count: messages.length,
    }))
    .addNode('below', below)
    .addNode('part', ({ count }: { count: number }) => ({ notes: [`part ${count}`] }))
    .addNode('ask', () => ({ notes: [interrupt<string, string>('go on?')] }))
    .addEdge(START, 'answer')
    .addEdge('answer', 'below')
    .addConditionalEdges('below', () => [1, 2, 3].map((count) => new Send('part', { count })), ['part'])
    .addEdge('part', 'ask')
    .addEdge('ask', END)
    .compile({ checkpointer: checkpointer as BaseCheckpointSaver })
}

const say = (text: string, id: string) => ({ messages: [new HumanMessage({ id, content: text })] })

const historyOf = async (saver: Saver, threadId: string) =>
  (await collect(graphOn(saver).getStateHistory({ configurable: { thread_id: threadId } }))).map(
    ({ config, parentConfig, values, next, tasks, metadata, createdAt }) => ({
      id: config.configurable?.checkpoint_id,
      parent: parentConfig?.configurable?.checkpoint_id,
      values,
      next,
      tasks: tasks
        .map(({ id, name, interrupts, error }) => ({ id, name, interrupts, error }))
        .sort((a, b) => (a.id < b.id ? -1 : 1)),
      metadata,
      createdAt,
    }),
  )

/** A thread with forks, from time travel and from a changed state, that waits for an answer. */
async function writeThread(saver: Saver, thread_id: string): Promise<void> {
  const graph = graphOn(saver)
  const config = { configurable: { thread_id } }
  await graph.invoke(say('hello', 'h1'), config)
  await graph.invoke(new Command({ resume: 'yes' }), config)
  await graph.invoke(say('and now?', 'h2'), config)
  const history = await collect(graph.getStateHistory(config))
  const early = history.find(({ next }) => next.includes('below'))
  await graph.invoke(null, early?.config)
  await graph.updateState(history.at(-3)?.config ?? config, say('another way', 'h3'))
}

const checkpointOf = (values: Record<string, unknown>, step: number, fields: object = {}): Checkpoint => ({
  v: 4,
  id: uuid6(step),
  ts: new Date(1_700_000_000_000 + step).toISOString(),
  channel_values: values,
  channel_versions: Object.fromEntries(Object.keys(values).map((name) => [name, step])),
  versions_seen: { node: { a: step } },
  ...fields,
})

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

describe.skipIf(postgres?.available !== true)('taking over what a stock checkpointer stored', () => {
  let opened: TestDatabase
  let pool: pg.Pool
  let schema: string
  let peer: PostgresSaver
  let own: ThreadbaseSaver
  const schemas: string[] = []

  beforeAll(async () => {
    if (postgres === undefined) throw new Error('no engine')
    opened = await postgres.open()
    pool = new pg.Pool({ connectionString: postgresUrl ?? '', max: 4 })
  })
  afterAll(async () => {
    for (const name of schemas) await pool.query(`drop schema if exists ${name} cascade`)
    await pool.end()
    await opened.close()
  })
  beforeEach(async () => {
    for (const table of [
      'checkpoints',
      'checkpoint_blobs',
      'checkpoint_writes',
      'checkpoint_tombstones',
      'store',
    ])
      await pool.query(`delete from ${opened.database.schema}.${table}`)
    schema = newSchemaName()
    schemas.push(schema)
    peer = new PostgresSaver(pool, undefined, { schema })
    await peer.setup()
    own = new ThreadbaseSaver(opened.database, USER)
  })

  const adopt = (options: AdoptOptions = {}) =>
    adoptCheckpoints(opened.database, USER, { schema, ...options })
  const ownRows = async () => {
    const tables = ['checkpoints', 'checkpoint_blobs', 'checkpoint_writes', 'checkpoint_tombstones']
    const { schema: name } = opened.database
    const read = tables.map((table) => pool.query(`select x.* from ${name}.${table} x order by x::text`))
    return (await Promise.all(read)).map(({ rows }) => rows)
  }
  const peerRows = async () => {
    const tables = ['checkpoints', 'checkpoint_blobs', 'checkpoint_writes']
    const read = tables.map((table) =>
      pool.query(`select x.*, x.xmin from ${schema}.${table} x order by x::text`),
    )
    return (await Promise.all(read)).map(({ rows }) => rows)
  }
  const put = (saver: Saver, thread_id: string, checkpoint: Checkpoint, parent?: string, metadata = {}) =>
    saver.put(
      { configurable: { thread_id, checkpoint_ns: '', checkpoint_id: parent } },
      checkpoint,
      { source: 'loop', step: 1, parents: {}, ...metadata },
      checkpoint.channel_versions,
    )

  test('threads of a graph, with forks, graphs below and a question that waits, are what they were', async () => {
    for (const id of ['one', 'two', 'Ünï "\'% three']) await writeThread(peer, id)
    const before = await peerRows()
    const report = await adopt()
    expect(await peerRows()).toEqual(before)
    expect(report).toMatchObject({
      threads: 3,
      checkpoints: before[0]?.length,
      writes: before[2]?.length,
      known: 0,
    })
    for (const id of ['one', 'two', 'Ünï "\'% three']) {
      const expected = await listAll(peer, id)
      expect(new Set(expected.map(({ ns }) => ns)).size).toBeGreaterThan(1)
      expect(await listAll(own, id)).toEqual(expected)
      for (const { id: checkpoint_id, ns: checkpoint_ns } of expected) {
        const config = { configurable: { thread_id: id, checkpoint_id, checkpoint_ns } }
        const [a, b] = await Promise.all([own.getTuple(config), peer.getTuple(config)])
        expect(plain(a as CheckpointTuple)).toEqual(plain(b as CheckpointTuple))
      }
      expect(await historyOf(own, id)).toEqual(await historyOf(peer, id))
    }
    const { items } = await own.listThreads()
    expect(items.map(({ threadId }) => threadId)).toEqual(['one', 'two', 'Ünï "\'% three'].sort())
  })

  test('a graph goes on from where it was, on a fork with the values of the fork', async () => {
    const config = { configurable: { thread_id: 't' } }
    await graphOn(peer).invoke(say('hello', 'h1'), config)
    await writeThread(peer, 'forked')
    await adopt()
    const go = async (saver: Saver, thread_id: string) => {
      const graph = graphOn(saver)
      const resume = new Command({ resume: 'fine' }) as Parameters<typeof graph.invoke>[0]
      const results = []
      for (const input of [resume, say('once more', 'h9'), resume])
        results.push(await graph.invoke(input, { configurable: { thread_id } }))
      return results.map(({ messages, notes }) => [notes, messages.map(({ id, content }) => [id, content])])
    }
    expect(await go(own, 't')).toEqual(await go(peer, 't'))
    expect(await listAll(own, 't')).toHaveLength((await listAll(peer, 't')).length)
    // where the peer, which keeps values by version, shows those of the branch that was left
    expect((await go(own, 'forked')).at(-1)?.[1]).toContainEqual(['h9', 'once more'])
  })

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

  test('again it changes nothing, and takes what is new, writes to what was taken included', async () => {
    await writeThread(peer, 't')
    await adopt()
    const first = await ownRows()
    const [newest] = await listAll(peer, 't').then((all) => all.slice(-1))
    expect(await adopt()).toMatchObject({ threads: 0, checkpoints: 0, writes: 0, known: first[0]?.length })
    expect(await ownRows()).toEqual(first)
    const at = { configurable: { thread_id: 't', checkpoint_ns: newest?.ns, checkpoint_id: newest?.id } }
    await peer.putWrites(at, [['notes', 'late']], 'late task')
    expect(await adopt()).toMatchObject({ threads: 1, checkpoints: 0, writes: 1 })
    await graphOn(peer).invoke(say('more', 'h8'), { configurable: { thread_id: 't' } })
    await writeThread(peer, 'another')
    const { checkpoints } = await adopt()
    expect(checkpoints).toBeGreaterThan(10)
    for (const id of ['t', 'another']) expect(await listAll(own, id)).toEqual(await listAll(peer, id))
  })

  test('a thread that was deleted here does not come back, its name can be used, and what the peer adds comes', async () => {
    await writeThread(peer, 't')
    await adopt()
    await own.deleteThread('t')
    await own.prune({})
    const { checkpoints, deleted } = await adopt()
    expect(checkpoints).toBe(0)
    expect(deleted).toBe((await listAll(peer, 't')).length)
    expect(await listAll(own, 't')).toEqual([])
    // for longer than writes are waited for
    await pool.query(`update ${opened.database.schema}.checkpoint_tombstones
                         set deleted_at = least(deleted_at, now() - interval '1 day') where deleted_at < 'infinity'`)
    await own.deleteThread('some other thread')
    expect(await adopt()).toMatchObject({ checkpoints: 0, deleted })
    await graphOn(own).invoke(say('anew', 'h1'), { configurable: { thread_id: 't' } })
    expect(
      (await own.getTuple({ configurable: { thread_id: 't' } }))?.checkpoint.channel_values.messages,
    ).toHaveLength(2)
    const late = checkpointOf({ a: 1 }, 9_999)
    await put(peer, 't', late)
    expect(await adopt()).toMatchObject({ checkpoints: 1 })
    expect(await own.getTuple({ configurable: { thread_id: 't', checkpoint_id: late.id } })).toBeDefined()
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

  test('the values of a thread of many steps are taken in batches, and stopped, and go on', async () => {
    const messages = Array.from({ length: 60 }, () => ({
      role: 'user',
      content: randomBytes(7_500).toString('hex'),
    }))
    for (let n = 1; n <= 60; n++) await put(peer, 'long', checkpointOf({ messages: messages.slice(0, n) }, n))
    await writeThread(peer, 'a short one')
    const controller = new AbortController()
    const steps: number[] = []
    const stopped = adopt({
      signal: controller.signal,
      onProgress: (done, of) => {
        steps.push(done / of)
        if (steps.length === 2) controller.abort()
      },
    })
    await expect(stopped).rejects.toThrow()
    expect(steps).toHaveLength(2)
    expect(steps).toEqual(steps.toSorted((a, b) => a - b))
    const report = await adopt()
    expect(report.bytesAfter).toBeLessThan(report.bytesBefore / 10)
    for (const id of ['long', 'a short one']) expect(await listAll(own, id)).toEqual(await listAll(peer, id))
  })

  test('a dry run writes nothing', async () => {
    await writeThread(peer, 't')
    expect(await adopt({ dryRun: true })).toMatchObject({
      threads: 1,
      checkpoints: (await peerRows())[0]?.length,
    })
    expect(await ownRows()).toEqual([[], [], [], []])
  })

  test('two at once, and a run of the thread here in between', async () => {
    for (const id of ['a', 'b', 'c']) await writeThread(peer, id)
    const running = graphOn(own).invoke(say('here', 'h1'), { configurable: { thread_id: 'b' } })
    const reports = await Promise.all([adopt(), adopt(), adopt()])
    await running
    const total = reports.reduce((sum, { checkpoints }) => sum + checkpoints, 0)
    expect(total).toBe((await peerRows())[0]?.length)
    for (const id of ['a', 'c']) expect(await listAll(own, id)).toEqual(await listAll(peer, id))
    expect(await listAll(own, 'b')).toEqual(expect.arrayContaining(await listAll(peer, 'b')))
  })

  test('under enforced row level security the threads are those of the user', async () => {
    const strict = await postgres?.open({ rls: 'enforce' })
    if (strict === undefined) throw new Error('no engine')
    try {
      await writeThread(peer, 't')
      await adoptCheckpoints(strict.database, { userId: 'u1' }, { schema })
      const saver = new ThreadbaseSaver(strict.database, { userId: 'u1' })
      expect(await listAll(saver, 't')).toEqual(await listAll(peer, 't'))
      expect(await listAll(new ThreadbaseSaver(strict.database, { userId: 'u2' }), 't')).toEqual([])
      await graphOn(saver).invoke(new Command({ resume: 'yes' }), { configurable: { thread_id: 't' } })
    } finally {
      await strict.close()
    }
  })

  test('the store comes along', async () => {
    const store = new PostgresStore({ connectionOptions: postgresUrl ?? '', schema, ttl: { defaultTtl: 60 } })
    await store.setup()
    await store.put(['users', 'u1'], 'color', { text: 'red', n: 5, odd: 'é\uffff' })
    await store.put(['users'], 'x', { deep: { list: [1, 'two'] } })
    await store.put(['users', 'gone'], 'x', { text: 'expired' }, undefined)
    await pool.query(
      `update ${schema}.store set expires_at = now() - interval '1 s' where namespace_path = 'users:gone'`,
    )
    await pool.query(`update ${schema}.store set expires_at = null where namespace_path = 'users'`)
    await pool.query(`insert into ${schema}.store values ('a::b', 'k', '{}'), ('list', 'k', '[]')`)
    expect(await adopt()).toMatchObject({ items: 2, refusedItems: 2 })
    const mine = opened.tb.forUser('local').store
    expect(await mine.get(['users', 'u1'], 'color')).toMatchObject({
      value: { text: 'red', n: 5, odd: 'é\uffff' },
      namespace: ['users', 'u1'],
    })
    expect(await mine.search(['users'])).toHaveLength(2)
    expect((await mine.search(['users'], { query: 'two' })).map(({ key }) => key)).toEqual(['x'])
    expect(await adopt()).toMatchObject({ items: 0 })
    await mine.put(['users'], 'x', { mine: true })
    expect(await adopt()).toMatchObject({ items: 0 })
    await store.put(['users', 'u1'], 'color', { text: 'blue' })
    expect(await adopt()).toMatchObject({ items: 1 })
    expect((await mine.get(['users', 'u1'], 'color'))?.value).toEqual({ text: 'blue' })
    await store.stop()
  })

  test('what cannot be meant is refused', async () => {
    await expect(adopt({ schema: 'no such schema' })).rejects.toMatchObject({ code: 'not_found' })
    await expect(adopt({ schema: opened.database.schema })).rejects.toMatchObject({ code: 'invalid_input' })
    await pool.query(`alter table ${schema}.checkpoints drop column parent_checkpoint_id`)
    await expect(adopt()).rejects.toMatchObject({
      code: 'invalid_input',
      message: expect.stringContaining('parent_checkpoint_id'),
    })
    await expect(adoptCheckpoints(opened.database, { userId: '' }, { schema })).rejects.toMatchObject({
      code: 'invalid_input',
    })
  })

  describe('threadbase checkpoints adopt', () => {
    const env = () => ({
      DATABASE_URL: String(postgresUrl),
      DATABASE_SCHEMA: opened.database.schema,
      LOG_LEVEL: 'warn',
    })

    test('takes everything for user local, and says so', async () => {
      await writeThread(peer, 't')
      const dry = await run(['checkpoints', 'adopt', '--schema', schema, '--dry-run', '--json'], env())
      expect(dry).toMatchObject({ code: 0, stderr: '' })
      expect(JSON.parse(dry.stdout)).toMatchObject({ threads: 1, dry_run: true })
      const { code, stdout, stderr } = await run(['checkpoints', 'adopt', '--schema', schema], env())
      expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
      expect(stdout).toMatch(
        /^threads +1\ncheckpoints +\d+\nwrites +\d+\nstore items +0\nalready there +0 .*\n.* → .* KB in .* s\n$/,
      )
      expect(await listAll(own, 't')).toEqual(await listAll(peer, 't'))
      const again = await run(['checkpoints', 'adopt', '--schema', schema, '--json'], env())
      expect(JSON.parse(again.stdout)).toMatchObject({
        threads: 0,
        checkpoints: 0,
        known: expect.any(Number),
      })
      const other = await run(['checkpoints', 'adopt', '--schema', schema, '--user', 'u7', '--json'], env())
      expect(JSON.parse(other.stdout)).toMatchObject({ threads: 1 })
      expect(await listAll(new ThreadbaseSaver(opened.database, { userId: 'u7' }), 't')).toHaveLength(
        JSON.parse(other.stdout).checkpoints,
      )
    })

    test('refuses the embedded store, a schema without tables, and to store what would not be read', async () => {
      const embedded = await run(['checkpoints', 'adopt'], { DATA_DIR: '/nowhere' })
      expect(embedded).toMatchObject({ code: 2, stderr: expect.stringContaining('DATABASE_URL') })
      const empty = await run(['checkpoints', 'adopt', '--schema', 'nowhere'], env())
      expect(empty).toMatchObject({ code: 3, stdout: '', stderr: expect.stringContaining('nowhere') })
      const encrypted = await run(['checkpoints', 'adopt', '--schema', schema], {
        ...env(),
        CHECKPOINT_ENCRYPTION: 'on',
        ENCRYPTION_KEY: Buffer.alloc(32, 7).toString('base64'),
      })
      expect(encrypted).toMatchObject({
        code: 2,
        stderr: expect.stringContaining('CHECKPOINT_ALLOW_PLAINTEXT'),
      })
    })
  })
})

test('the embedded store has no stock tables', async () => {
  const opened = await pglite?.open()
  if (opened === undefined) throw new Error('no engine')
  await expect(adoptCheckpoints(opened.database, USER)).rejects.toMatchObject({
    code: 'invalid_input',
    message: expect.stringContaining('DATABASE_URL'),
  })
  await opened.close()
})
