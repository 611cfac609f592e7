import { HumanMessage } from '@langchain/core/messages'
import {
  type Checkpoint,
  type CheckpointMetadata,
  type CheckpointTuple,
  DeltaSnapshot,
  uuid6,
} from '@langchain/langgraph-checkpoint'
import { sql } from 'kysely'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { engines, type TestDatabase } from '../../test/harness.ts'
import { type SaverOptions, ThreadbaseSaver } from './service.ts'

type Config = { configurable: Record<string, string | undefined> }

const META: CheckpointMetadata = { source: 'loop', step: 0, parents: {} }
const long = (n: number | string) => `${n} `.padEnd(300, 'lorem ipsum ')
const note = (n: number | string) => ({ id: `m${n}`, content: long(n) })

function checkpointOf(channel_values: Record<string, unknown>, given: Partial<Checkpoint> = {}): Checkpoint {
  const versions = Object.fromEntries(Object.keys(channel_values).map((name) => [name, 1]))
  return {
    v: 4,
    id: uuid6(0),
    ts: new Date().toISOString(),
    channel_values,
    channel_versions: versions,
    versions_seen: {},
    ...given,
  }
}

for (const engine of engines) {
  describe.skipIf(!engine.available)(`the checkpointer on ${engine.name}`, () => {
    let opened: TestDatabase
    beforeAll(async () => {
      opened = await engine.open()
    })
    afterAll(() => opened?.close())

    let users = 0
    const newSaver = (options: SaverOptions = {}) =>
      new ThreadbaseSaver(opened.database, { userId: `user-${++users}`, ...options })
    const sameUser = (options: SaverOptions = {}) =>
      new ThreadbaseSaver(opened.database, { userId: `user-${users}`, ...options })
    const at = (thread: string, id?: string, ns = ''): Config => ({
      configurable: { thread_id: thread, checkpoint_ns: ns, checkpoint_id: id },
    })
    const put = async (
      saver: ThreadbaseSaver,
      config: Config,
      values: Record<string, unknown>,
      metadata: object = {},
    ) => {
      const checkpoint = checkpointOf(values)
      return (await saver.put(
        config,
        checkpoint,
        { ...META, ...metadata },
        checkpoint.channel_versions,
      )) as Config
    }
    const valuesOf = async (saver: ThreadbaseSaver, config: Config) =>
      (await saver.getTuple(config))?.checkpoint.channel_values
    /** Rows of the newest user, by table. */
    const countRows = async (user = `user-${users}`) => {
      const counts: Record<string, number> = {}
      for (const table of ['checkpoints', 'checkpoint_blobs', 'checkpoint_writes'] as const) {
        const { n } = await opened.database.db
          .selectFrom(table)
          .select((e) => e.fn.countAll().as('n'))
          .where('user_id', '=', user)
          .executeTakeFirstOrThrow()
        counts[table.replace('checkpoint_', '')] = Number(n)
      }
      return counts
    }
    const NOTHING = { checkpoints: 0, blobs: 0, writes: 0 }

    test('a fork has the values of its own branch, though versions are integers that both branches use', async () => {
      const saver = newSaver()
      const first = await put(saver, at('t'), { a: long('first'), list: [note(1)] })
      const left = await put(saver, first, { a: long('left'), list: [note(1), note('left')] })
      const right = await put(saver, first, { a: long('right'), list: [note(1), note('right')] })
      expect(await valuesOf(saver, left)).toEqual({ a: long('left'), list: [note(1), note('left')] })
      expect(await valuesOf(saver, right)).toEqual({ a: long('right'), list: [note(1), note('right')] })
      expect(await valuesOf(saver, first)).toEqual({ a: long('first'), list: [note(1)] })
    })

    test('no two versions are the same, and the next is greater than an integer or a text before it', async () => {
      const { compareChannelVersions } = await import('@langchain/langgraph-checkpoint')
      const saver = newSaver()
      for (const before of [
        undefined,
        0,
        7,
        1e9,
        '00000000000000000000000000000002.0.24',
        saver.getNextVersion(9),
      ]) {
        const [one, other] = [saver.getNextVersion(before), saver.getNextVersion(before)]
        expect(one).not.toBe(other)
        if (before !== undefined) expect(compareChannelVersions(one, before)).toBeGreaterThan(0)
        expect(compareChannelVersions(saver.getNextVersion(one), other)).toBeGreaterThan(0)
      }
    })

    test('a list that grows by 1 KB a step is stored once, not once a step', async () => {
      const saver = newSaver()
      let config = at('t')
      const list: object[] = []
      for (let i = 0; i < 120; i++) {
        list.push({ id: `m${i}`, content: `${i} `.padEnd(1_000, 'abc ') })
        config = await put(saver, config, { list: [...list] })
      }
      const { rows } = await sql<{ bytes: number }>`
        select sum(coalesce(length(data), 0) + 16 * coalesce(cardinality(refs), 0))::int as bytes
          from ${sql.table('checkpoint_blobs')} where user_id = ${`user-${users}`}`.execute(
        opened.database.db,
      )
      expect(rows[0]?.bytes).toBeLessThan(120 * 1_000 * 2)
      expect(await valuesOf(saver, config)).toEqual({ list })
    })

    test('put, putWrites and getTuple are one statement each, however many channels and values there are', async () => {
      const names: string[] = []
      const traced = await engine.open({ trace: (name) => void names.push(name) })
      try {
        const saver = new ThreadbaseSaver(traced.database, { userId: 'u' })
        const values = Object.fromEntries(
          Array.from({ length: 30 }, (_, i) => [`c${i}`, [note(i), note(-i)]]),
        )
        names.length = 0
        const config = await put(saver, at('t'), values)
        await saver.putWrites(
          config,
          [
            ['a', 1],
            ['b', long(2)],
            ['c', [note(3)]],
          ],
          'task',
        )
        await saver.getTuple(at('t'))
        for await (const _ of saver.list(at('t'))) _.checkpoint
        expect(names).toEqual([
          'checkpoints.put',
          'checkpoints.put_writes',
          'checkpoints.read',
          'checkpoints.read',
        ])
      } finally {
        await traced.close()
      }
    })

    test('writes come back in the order of task path, task and index, by code point', async () => {
      const saver = newSaver()
      const config = await put(saver, at('t'), {})
      const paths = ['~\uffee', '~\u{1f600}', '', '~b', '~a']
      for (const [i, path] of paths.entries())
        await saver.putWrites(
          config,
          [
            ['x', i],
            ['y', i],
          ],
          `task-${9 - i}`,
          path,
        )
      const { pendingWrites } = (await saver.getTuple(config)) ?? {}
      expect(pendingWrites?.map(([, channel, value]) => `${value}${channel}`)).toEqual(
        [2, 4, 3, 0, 1].flatMap((i) => [`${i}x`, `${i}y`]),
      )
    })

    test('a write with a negative index replaces the earlier one, another stays as it was', async () => {
      const saver = newSaver()
      const config = await put(saver, at('t'), {})
      await saver.putWrites(
        config,
        [
          ['x', 1],
          ['__error__', 'first'],
        ],
        'task',
      )
      await saver.putWrites(
        config,
        [
          ['x', 2],
          ['__error__', 'second'],
        ],
        'task',
      )
      const { pendingWrites } = (await saver.getTuple(config)) ?? {}
      expect(pendingWrites).toEqual([
        ['task', '__error__', 'second'],
        ['task', 'x', 1],
      ])
    })

    test('NUL, lone surrogates and any JSON in metadata are kept, and found', async () => {
      const saver = newSaver()
      const odd = { 'a\0b': 'c\0d', lone: '\ud800', deep: { x: [1, null, { y: '\0' }] }, n: null }
      const config = await put(saver, at('t'), {}, odd)
      await put(saver, config, {}, { lone: 'other' })
      expect((await saver.getTuple(config))?.metadata).toEqual({ ...META, ...odd })
      for (const [key, value] of Object.entries(odd)) {
        const ids: unknown[] = []
        for await (const { config } of saver.list(at('t'), { filter: { [key]: value } })) ids.push(config)
        expect(ids, key).toEqual([config])
      }
    })

    test('writes that come after deleteThread leave nothing, those of a new run are kept', async () => {
      const saver = newSaver()
      const config = await put(saver, at('t'), { list: [note(1)] })
      await saver.putWrites(config, [['x', long(1)]], 'task')
      await saver.deleteThread('t')
      await saver.putWrites(config, [['x', long(2)]], 'late')
      expect(await countRows()).toEqual(NOTHING)
      // as with durability "async": the writes first
      const next = checkpointOf({})
      await saver.putWrites(at('t', next.id), [['x', 1]], 'task')
      await saver.put(at('t'), next, META, {})
      expect((await saver.getTuple(at('t')))?.pendingWrites).toEqual([['task', 'x', 1]])
      // what was deleted can be stored again
      await put(saver, config, { list: [note(1)] })
      expect(await valuesOf(saver, at('t'))).toEqual({ list: [note(1)] })
    })

    test('with concurrency reject, of two that go on from one checkpoint one gets a conflict', async () => {
      const one = newSaver({ concurrency: 'reject' })
      const other = sameUser({ concurrency: 'reject' })
      const first = await put(one, at('t'), { a: 0 })
      const conflict = { code: 'conflict' }
      await expect(put(other, at('t'), { a: 9 })).rejects.toMatchObject(conflict)
      await Promise.all([one.getTuple(at('t')), other.getTuple(at('t'))])
      const outcomes = await Promise.allSettled([put(one, first, { a: 1 }), put(other, first, { a: 2 })])
      expect(outcomes.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected'])
      expect(outcomes.find(({ status }) => status === 'rejected')).toMatchObject({ reason: conflict })
      // one that has read the thread again may fork from where it likes
      await other.getTuple(first)
      const fork = await put(other, first, { a: 3 })
      await put(other, fork, { a: 4 })
      expect(await valuesOf(one, at('t'))).toEqual({ a: 4 })
    })

    test('by default the newest wins', async () => {
      const [one, other] = [newSaver(), sameUser()]
      const first = await put(one, at('t'), { a: 0 })
      await put(one, first, { a: 1 })
      await put(other, first, { a: 2 })
      expect(await valuesOf(one, at('t'))).toEqual({ a: 2 })
    })

    test('what was changed in place after a put is stored with its new value', async () => {
      const saver = newSaver()
      const list = [
        ...Array.from({ length: 200 }, (_, i) => note(i)),
        new HumanMessage({ content: long('h'), id: 'h' }),
      ]
      const state = { items: [long(1)], deep: { n: 1 } }
      const first = await put(saver, at('t'), { list, state })
      const before = structuredClone(list.slice(0, 200))
      // a field, however old the element
      ;(list[3] as { content: string }).content = 'replaced'
      // deep inside, near the end
      ;(list[200] as HumanMessage).additional_kwargs.seen = true
      ;(list[198] as unknown as Record<string, unknown>).tags = ['new']
      // in a value that the run says it changed, and in one that it does not
      state.items.push(long(2))
      state.deep.n = 2
      const second = (await saver.put(first, checkpointOf({ list, state }), META, { list: 2 })) as Config
      const fresh = sameUser()
      const now = (await valuesOf(fresh, second)) as { list: unknown[]; state: unknown }
      expect(now.list).toEqual(list)
      expect(now.state).toEqual({ items: [long(1), long(2)], deep: { n: 2 } })
      const then = (await valuesOf(fresh, first)) as { list: unknown[]; state: unknown }
      expect(then.list.slice(0, 200)).toEqual(before)
      expect(then.state).toEqual({ items: [long(1)], deep: { n: 1 } })
    })

    test('objects that were read are not sent again when they are stored', async () => {
      const saver = newSaver()
      const list = Array.from({ length: 50 }, (_, i) => note(i))
      await put(saver, at('t'), { list })
      const other = sameUser()
      const tuple = await other.getTuple(at('t'))
      const written: unknown[] = []
      const dumpsTyped = other.serde.dumpsTyped.bind(other.serde)
      Object.getPrototypeOf(other.serde).dumpsTyped = (value: unknown) => {
        written.push(value)
        return dumpsTyped(value)
      }
      try {
        await put(other, tuple?.config as Config, {
          list: [...((tuple as CheckpointTuple).checkpoint.channel_values.list as object[]), note('new')],
        })
      } finally {
        Object.getPrototypeOf(other.serde).dumpsTyped = dumpsTyped
      }
      expect(written.filter((one) => typeof one === 'object' && one !== null && 'content' in one)).toEqual([
        note('new'),
      ])
    })

    test('what another process removed is sent again', async () => {
      const one = newSaver()
      const list = Array.from({ length: 100 }, (_, i) => note(i))
      const first = await put(one, at('t'), { list, text: long('x') })
      await sameUser().deleteThread('t')
      const second = await put(one, first, { list: [...list, note('new')], text: long('x') })
      expect(await valuesOf(sameUser(), second)).toEqual({ list: [...list, note('new')], text: long('x') })
    })

    test('prune keeps the newest of each namespace and nothing that only others used', async () => {
      const saver = newSaver()
      let config = at('t')
      const list: object[] = []
      for (let i = 0; i < 60; i++) {
        list.push(note(i))
        config = await put(saver, config, { list: [...list], text: long(i) })
        await saver.putWrites(config, [['x', i]], 'task')
      }
      const child = await put(saver, at('t', undefined, 'child'), { list: list.slice(0, 20) })
      const removed = await saver.prune({ keepLatest: 2, threadIds: ['t'] })
      expect(removed).toMatchObject({ checkpoints: 58, writes: 58 })
      expect(await valuesOf(sameUser(), config)).toEqual({ list, text: long(59) })
      expect(await valuesOf(sameUser(), child)).toEqual({ list: list.slice(0, 20) })
      // exactly what a thread has that never had more
      const kept = await countRows()
      await saver.copyThread('t', 'copy')
      const again = newSaver()
      let other = await put(again, at('t'), { list: list.slice(0, 59), text: long(58) })
      await again.putWrites(other, [['x', 1]], 'task')
      other = await put(again, other, { list, text: long(59) })
      await again.putWrites(other, [['x', 1]], 'task')
      await put(again, at('t', undefined, 'child'), { list: list.slice(0, 20) })
      expect(kept).toEqual(await countRows())
    })

    test('prune by age, of chosen threads, to nothing', async () => {
      const saver = newSaver()
      const old = checkpointOf({ list: [note(1)] }, { ts: '2020-01-01T00:00:00.000Z' })
      const first = (await saver.put(at('t'), old, META, { list: 1 })) as Config
      const now = await put(saver, first, { list: [note(1), note(2)] })
      await put(saver, at('u'), { list: [note(1)] })
      expect(await saver.prune({ olderThanS: 3_600 })).toMatchObject({ checkpoints: 1 })
      expect(await valuesOf(saver, first)).toBeUndefined()
      expect(await valuesOf(saver, now)).toEqual({ list: [note(1), note(2)] })
      await saver.prune({ threadIds: ['t'], keepLatest: 0 })
      expect(await saver.getTuple(at('t'))).toBeUndefined()
      expect(await valuesOf(saver, at('u'))).toEqual({ list: [note(1)] })
      await saver.prune({ keepLatest: 0 })
      expect(await countRows()).toEqual(NOTHING)
      for (const bad of [{ keepLatest: -1 }, { olderThanS: Number.NaN }, { threadIds: [''] }]) {
        await expect(saver.prune(bad)).rejects.toMatchObject({ code: 'invalid_input' })
      }
    })

    test('prune keeps what a DeltaChannel of a kept checkpoint is read through, and no more', async () => {
      const saver = newSaver()
      const counters = { counters_since_delta_snapshot: { messages: [1, 1] } }
      const c0 = await put(saver, at('t'), { other: long(0), messages: new DeltaSnapshot([note('old')]) })
      const c1 = await put(saver, c0, { other: long(1), messages: new DeltaSnapshot([note(0)]) })
      await saver.putWrites(
        c1,
        [
          ['messages', [note(1)]],
          ['other', long(1)],
        ],
        'task-1',
      )
      const c2 = await put(saver, c1, { other: long(2) }, counters)
      await saver.putWrites(c2, [['messages', [note(2)]]], 'task-2')
      const c3 = await put(saver, c2, { other: long(3) }, counters)
      const options = { config: c3, channels: ['messages'] }
      const before = await saver.getDeltaChannelHistory(options)
      expect(before.messages?.writes.map(([, , value]) => value)).toEqual([[note(1)], [note(2)]])
      await saver.prune()
      expect(await saver.getDeltaChannelHistory(options)).toEqual(before)
      const seen: unknown[] = []
      for await (const { config } of saver.list(at('t'))) seen.push(config)
      expect(seen).toEqual([c3])
      // c1 with the snapshot, c2, c3; of values the snapshot's node and element, and c3's text
      expect(await countRows()).toEqual({ checkpoints: 3, blobs: 3, writes: 2 })
      const c4 = await put(saver, c3, { other: long(4), messages: new DeltaSnapshot([note(0)]) })
      await saver.prune()
      expect(await countRows()).toEqual({ checkpoints: 1, blobs: 3, writes: 0 })
      expect(await valuesOf(saver, c4)).toEqual({ other: long(4), messages: new DeltaSnapshot([note(0)]) })
    })

    test('deleteForRuns removes the checkpoints of runs in all threads of the user', async () => {
      const saver = newSaver()
      for (const thread of ['s', 't']) {
        const first = await put(saver, at(thread), { list: [note(1)] }, { run_id: 'r1' })
        await saver.putWrites(first, [['x', 1]], 'task')
        await put(saver, first, { list: [note(1), note(2)] }, { run_id: 'r2' })
      }
      const stranger = newSaver()
      await put(stranger, at('t'), { a: 1 }, { run_id: 'r1' })
      expect(await stranger.deleteForRuns(['r2'])).toMatchObject({ checkpoints: 0 })
      const mine = new ThreadbaseSaver(opened.database, { userId: `user-${users - 1}` })
      expect(await mine.deleteForRuns(['r1', 'none'])).toMatchObject({ checkpoints: 2, writes: 2 })
      expect(await valuesOf(mine, at('s'))).toEqual({ list: [note(1), note(2)] })
      expect(await mine.deleteForRuns(['r2'])).toMatchObject({ checkpoints: 2 })
      expect(await countRows(`user-${users - 1}`)).toEqual(NOTHING)
      expect(await stranger.getTuple(at('t'))).toBeDefined()
    })

    test('copyThread copies all of a thread and shares nothing with it', async () => {
      const saver = newSaver()
      const first = await put(saver, at('s'), { list: [note(1)] })
      const second = await put(saver, first, { list: [note(1), note(2)] })
      await saver.putWrites(second, [['x', 1]], 'task')
      await saver.copyThread('s', 't')
      await expect(saver.copyThread('s', 't')).rejects.toMatchObject({ code: 'conflict' })
      await expect(saver.copyThread('none', 'u')).rejects.toMatchObject({ code: 'not_found' })
      await saver.deleteThread('s')
      const id = second.configurable.checkpoint_id
      const tuple = await saver.getTuple(at('t'))
      expect(tuple).toMatchObject({ config: at('t', id), pendingWrites: [['task', 'x', 1]] })
      expect(tuple?.checkpoint.channel_values).toEqual({ list: [note(1), note(2)] })
      expect(await valuesOf(saver, at('t', first.configurable.checkpoint_id))).toEqual({ list: [note(1)] })
    })

    test('listThreads goes through the threads of the user in pages', async () => {
      const saver = newSaver()
      const newest = new Map<string, string | undefined>()
      for (const thread of ['b', 'a', 'ä', 'c', '\u{1f600}']) {
        const first = await put(saver, at(thread), { a: 1 })
        newest.set(thread, (await put(saver, first, { a: 2 })).configurable.checkpoint_id)
      }
      const found: (string | undefined)[][] = []
      let cursor: string | undefined
      do {
        const page = await saver.listThreads({ limit: 2, cursor })
        expect(page.items.length).toBeLessThanOrEqual(2)
        found.push(...page.items.map(({ threadId, checkpointId }) => [threadId, checkpointId]))
        cursor = page.nextCursor
      } while (cursor !== undefined)
      expect(found).toEqual(['a', 'b', 'c', 'ä', '\u{1f600}'].map((thread) => [thread, newest.get(thread)]))
      expect(await newSaver().listThreads()).toEqual({ items: [] })
    })

    test('put again under the same id replaces the checkpoint and leaves nothing of the old one', async () => {
      const saver = newSaver()
      const checkpoint = checkpointOf({ list: [note(1)] })
      const config = (await saver.put(at('t'), checkpoint, META, { list: 1 })) as Config
      const other = { ...checkpoint, channel_values: { list: [note(2)] } }
      await saver.put(at('t'), other, META, { list: 1 })
      expect(await valuesOf(saver, config)).toEqual({ list: [note(2)] })
      expect(await countRows()).toEqual({ checkpoints: 1, blobs: 2, writes: 0 })
    })

    test('list goes through pages of any number, with all its conditions', async () => {
      const saver = newSaver()
      const ids: (string | undefined)[] = []
      let config = at('t')
      for (let i = 0; i < 75; i++) {
        config = await put(saver, config, { list: [note(i)] }, { step: i, even: i % 2 === 0 })
        ids.unshift(config.configurable.checkpoint_id)
      }
      const list = async (...args: Parameters<typeof saver.list>) => {
        const found: (string | undefined)[] = []
        for await (const { config, checkpoint, metadata } of saver.list(...args)) {
          found.push(config.configurable?.checkpoint_id)
          expect(checkpoint.channel_values).toEqual({ list: [note(metadata?.step ?? 0)] })
        }
        return found
      }
      expect(await list(at('t'))).toEqual(ids)
      expect(await list({ configurable: {} })).toEqual(ids)
      expect(await list(at('t'), { limit: 33 })).toEqual(ids.slice(0, 33))
      expect(await list(at('t'), { limit: 0 })).toEqual([])
      expect(await list(at('t'), { before: at('t', ids[10]), limit: 5 })).toEqual(ids.slice(11, 16))
      expect(await list(at('t'), { filter: { even: true } })).toEqual(ids.filter((_, i) => i % 2 === 0))
      expect(await list(at('t'), { filter: { even: true, none: undefined }, limit: 3 })).toEqual([
        ids[0],
        ids[2],
        ids[4],
      ])
      expect(await list(at('t'), { filter: { even: undefined } })).toEqual([])
      expect(await list(at('t', ids[4]))).toEqual([ids[4]])
    })

    test('a bad config, value or format is invalid_input that names the field', async () => {
      const saver = newSaver()
      const nobodys = newSaver({ userId: undefined })
      const circle: Record<string, unknown> = { n: 1n }
      const good = at('t')
      const cases: [field: string, call: () => Promise<unknown>][] = [
        ['configurable.thread_id', () => put(saver, { configurable: {} }, {})],
        ['configurable.thread_id', () => put(saver, at(5 as never), {})],
        ['configurable.thread_id', () => put(saver, at('a\0'), {})],
        ['configurable.checkpoint_ns', () => put(saver, at('t', undefined, '\ud800'), {})],
        ['configurable.checkpoint_id', () => saver.putWrites(good, [['a', 1]], 'task')],
        ['configurable.user_id', () => put(nobodys, good, {})],
        ['channel_values.a', () => put(saver, good, { a: () => 1 })],
        ['channel_values.a', () => put(saver, good, { a: circle })],
        ['channel_values.a', () => put(saver, good, { b: [note(1)], a: [1, { n: 5n }], c: { n: 5n } })],
        [
          'writes.1 (b)',
          () =>
            saver.putWrites(
              at('t', '1'),
              [
                ['a', 1],
                ['b', Symbol('x')],
              ],
              'task',
            ),
        ],
        ['metadata', () => put(saver, good, {}, { n: 5n })],
        ['checkpoint.v', () => saver.put(good, checkpointOf({}, { v: 5 }), META, {})],
        ['checkpoint.id', () => saver.put(good, checkpointOf({}, { id: '' }), META, {})],
      ]
      for (const [field, call] of cases) {
        await expect(call(), field).rejects.toMatchObject({ code: 'invalid_input', details: { field } })
      }
      expect(await countRows()).toEqual(NOTHING)
    })

    test('a checkpointer of nobody in particular goes by configurable.user_id, and keeps it in its answers', async () => {
      const saver = newSaver({ userId: undefined })
      const [a, b] = [`user-${users}-a`, `user-${users}-b`]
      const of = (user_id: string, id?: string): Config => ({
        configurable: { ...at('t', id).configurable, user_id },
      })
      const config = await put(saver, of(a), { x: 1 })
      expect(config.configurable.user_id).toBe(a)
      const next = await put(saver, config, { x: 2 })
      expect(await saver.getTuple(of(a))).toMatchObject({ config: next, parentConfig: config })
      expect(await saver.getTuple(of(b))).toBeUndefined()
      expect(await saver.getTuple(of(b, config.configurable.checkpoint_id))).toBeUndefined()
      // whose a checkpointer is, a config cannot change
      const hers = new ThreadbaseSaver(opened.database, { userId: a })
      expect(await valuesOf(hers, of(b))).toEqual({ x: 2 })
      await saver.deleteThread('t', { userId: b })
      expect(await valuesOf(hers, at('t'))).toEqual({ x: 2 })
      await saver.deleteThread('t', { userId: a })
      expect(await hers.getTuple(at('t'))).toBeUndefined()
    })

    test('sixteen writers on one thread store all they have', async () => {
      const savers = [newSaver(), ...Array.from({ length: 15 }, () => sameUser())]
      const shared = Array.from({ length: 40 }, (_, i) => note(i))
      const configs = await Promise.all(
        savers.map((saver, i) => put(saver, at('t'), { list: [...shared, note(`w${i}`)] })),
      )
      await Promise.all([
        ...configs.map((config, i) => savers[i]?.putWrites(config, [['x', i]], 'task')),
        savers[0]?.prune({ keepLatest: 100 }),
      ])
      const fresh = sameUser()
      for (const [i, config] of configs.entries()) {
        expect(await fresh.getTuple(config)).toMatchObject({
          checkpoint: { channel_values: { list: [...shared, note(`w${i}`)] } },
          pendingWrites: [['task', 'x', i]],
        })
      }
    })
  })
}
