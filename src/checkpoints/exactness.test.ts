import { sql } from 'kysely'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { engines, type TestDatabase } from '../../test/harness.ts'
import {
  at,
  type Config,
  checkpointOf,
  long,
  META,
  NO_ROWS,
  note,
  put,
  saversOn,
  valuesOf,
} from '../../test/savers.ts'
import { ThreadbaseSaver } from './service.ts'

for (const engine of engines) {
  describe.skipIf(!engine.available)(`what other checkpointers lose, on ${engine.name}`, () => {
    let opened: TestDatabase
    beforeAll(async () => {
      opened = await engine.open()
    })
    afterAll(() => opened?.close())
    const { newSaver, sameUser, countRows, userId } = saversOn(() => opened)

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
          from ${sql.table('checkpoint_blobs')} where user_id = ${userId()}`.execute(opened.database.db)
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
      expect(await countRows()).toEqual(NO_ROWS)
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

    test('so it is for two runs of one process, and a put whose answer was lost can be sent again', async () => {
      const saver = newSaver({ concurrency: 'reject' })
      const conflict = { code: 'conflict' }
      const first = await put(saver, at('t'), { a: 0 })
      await expect(put(saver, at('t'), { a: 9 })).rejects.toMatchObject(conflict)
      // both runs read the thread before either has stored anything
      await Promise.all([saver.getTuple(at('t')), saver.getTuple(at('t'))])
      const next = checkpointOf({ a: 1 })
      const second = (await saver.put(first, next, META)) as Config
      await expect(put(saver, first, { a: 2 })).rejects.toMatchObject(conflict)
      await saver.put(first, next, META)
      const third = await put(saver, second, { a: 3 })
      await saver.getTuple(first)
      await put(saver, first, { a: 4 })
      await put(saver, third, { a: 5 })
      // LangGraph takes the checkpoint that a subgraph is replayed from out of a list
      const other = sameUser({ concurrency: 'reject' })
      await expect(put(other, first, { a: 7 })).rejects.toMatchObject(conflict)
      for await (const tuple of other.list(at('t'))) expect(tuple.checkpoint.v).toBe(4)
      await put(other, first, { a: 8 })
      // it finds nothing there when it goes back to before a subgraph, which then begins again
      const inner = (id?: string) => ({
        configurable: { thread_id: 't', checkpoint_ns: 'child:1', ...(id && { checkpoint_id: id }) },
      })
      const begun = await put(other, inner(), { a: 1 })
      await expect(put(other, inner(), { a: 2 })).rejects.toMatchObject(conflict)
      const before = first.configurable.checkpoint_id
      for await (const tuple of other.list(inner(), { before: at('t', before), limit: 1 }))
        expect.fail(tuple.checkpoint.id)
      await put(other, inner(), { a: 2 })
      await expect(put(other, inner(), { a: 3 })).rejects.toMatchObject(conflict)
      // what another filter would have found was not read
      for await (const tuple of other.list(inner(), { filter: { source: 'fork' } }))
        expect.fail(tuple.checkpoint.id)
      await expect(put(other, inner(), { a: 3 })).rejects.toMatchObject(conflict)
      await put(other, begun, { a: 4 })
      // a thread that begins anew
      await saver.deleteThread('t')
      await put(saver, at('t'), { a: 6 })
      expect(await valuesOf(saver, at('t'))).toEqual({ a: 6 })
      // of two that begin it one gets a conflict, however it began before
      await saver.deleteThread('t')
      for (let begins = 0; begins < 2; begins++) expect(await saver.getTuple(at('t'))).toBeUndefined()
      await put(saver, at('t'), { a: 7 })
      await expect(put(saver, at('t'), { a: 8 })).rejects.toMatchObject(conflict)
    })

    test('by default the newest wins', async () => {
      const [one, other] = [newSaver(), sameUser()]
      const first = await put(one, at('t'), { a: 0 })
      await put(one, first, { a: 1 })
      await put(other, first, { a: 2 })
      expect(await valuesOf(one, at('t'))).toEqual({ a: 2 })
    })

    test('what another process removed is sent again', async () => {
      const one = newSaver()
      const list = Array.from({ length: 100 }, (_, i) => note(i))
      const first = await put(one, at('t'), { list, text: long('x') })
      await sameUser().deleteThread('t')
      const second = await put(one, first, { list: [...list, note('new')], text: long('x') })
      expect(await valuesOf(sameUser(), second)).toEqual({ list: [...list, note('new')], text: long('x') })
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
