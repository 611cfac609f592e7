import { randomBytes } from 'node:crypto'
import { Command } from '@langchain/langgraph'
import type { CheckpointTuple } from '@langchain/langgraph-checkpoint'
import { PostgresStore } from '@langchain/langgraph-checkpoint-postgres/store'
import { describe, expect, test } from 'vitest'
import { engines, postgresUrl } from '../../../test/harness.ts'
import {
  adopt,
  checkpointOf,
  graphOn,
  hasPostgres,
  historyOf,
  listAll,
  opened,
  own,
  ownRows,
  peer,
  peerRows,
  plain,
  pool,
  put,
  type Saver,
  say,
  schema,
  USER,
  useStockTables,
  writeThread,
} from '../../../test/stock-checkpoints.ts'
import { adoptCheckpoints, ThreadbaseSaver } from '../service.ts'

describe.skipIf(!hasPostgres)('taking over what a stock checkpointer stored', () => {
  useStockTables()

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

  test('where values are encrypted, what was taken is read and the thread goes on', async () => {
    await writeThread(peer, 't')
    await adopt()
    const encryption = { keys: [randomBytes(32).toString('base64')] }
    const strict = new ThreadbaseSaver(opened.database, { ...USER, encryption })
    await expect(listAll(strict, 't')).rejects.toMatchObject({ code: 'forbidden' })
    const saver = new ThreadbaseSaver(opened.database, {
      ...USER,
      encryption: { ...encryption, allowPlaintext: true },
    })
    expect(await listAll(saver, 't')).toEqual(await listAll(peer, 't'))
    await graphOn(saver).invoke(say('in secret', 'h9'), { configurable: { thread_id: 't' } })
    const newest = await strict.getTuple({ configurable: { thread_id: 't' } })
    expect(newest?.checkpoint.channel_values.messages).toHaveLength(4)
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

  test('the values of a thread of many steps are taken in batches, and stopped, and go on', async () => {
    const messages = Array.from({ length: 40 }, () => ({
      role: 'user',
      content: randomBytes(7_500).toString('hex'),
    }))
    for (let n = 1; n <= 40; n++) await put(peer, 'long', checkpointOf({ messages: messages.slice(0, n) }, n))
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
    const strict = await engines.find(({ name }) => name === 'postgres')?.open({ rls: 'enforce' })
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
})

test('the embedded store has no stock tables', async () => {
  const opened = await engines.find(({ name }) => name === 'pglite')?.open()
  if (opened === undefined) throw new Error('no engine')
  await expect(adoptCheckpoints(opened.database, USER)).rejects.toMatchObject({
    code: 'invalid_input',
    message: expect.stringContaining('DATABASE_URL'),
  })
  await opened.close()
})
