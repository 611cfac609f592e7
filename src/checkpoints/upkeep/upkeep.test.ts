import { DeltaSnapshot } from '@langchain/langgraph-checkpoint'
import { sql } from 'kysely'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { engines, type TestDatabase } from '../../../test/harness.ts'
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
} from '../../../test/savers.ts'
import { ThreadbaseSaver } from '../service.ts'

for (const engine of engines) {
  describe.skipIf(!engine.available)(`the upkeep of checkpoints on ${engine.name}`, () => {
    let opened: TestDatabase
    beforeAll(async () => {
      opened = await engine.open()
    })
    afterAll(() => opened?.close())
    const { userId, newSaver, sameUser, countRows } = saversOn(() => opened)

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

    test('prune removes writes whose checkpoint never came, and leaves those that it may still come for', async () => {
      const saver = newSaver()
      // a run that was killed, or refused, between its writes and its checkpoint
      await saver.putWrites(at('t', checkpointOf({}).id), [['x', 1]], 'task')
      const later = checkpointOf({ list: [note(1)] }, { ts: '2020-01-01T00:00:00.000Z' })
      const stored = (await saver.put(at('t'), later, META, { list: 1 })) as Config
      await saver.putWrites(stored, [['x', 2]], 'task')
      const coming = checkpointOf({ list: [note(1)] })
      await saver.putWrites(at('t', coming.id), [['x', 3]], 'task')
      expect(await saver.prune()).toEqual({ checkpoints: 0, writes: 1, blobs: 0 })
      expect(await countRows()).toMatchObject({ checkpoints: 1, writes: 2 })
      const next = await saver.put(stored, coming, META, { list: 1 })
      expect((await saver.getTuple(next))?.pendingWrites).toEqual([['task', 'x', 3]])
      expect((await saver.getTuple(stored))?.pendingWrites).toEqual([['task', 'x', 2]])
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
      expect(await countRows()).toEqual(NO_ROWS)
      for (const bad of [{ keepLatest: -1 }, { olderThanS: Number.NaN }, { threadIds: [''] }]) {
        await expect(saver.prune(bad)).rejects.toMatchObject({ code: 'invalid_input' })
      }
    })

    // a plan that compares each value with each takes minutes for this; src/checkpoints/plans.test.ts looks at the plans
    test('prune ends for a long list, though the database has no statistics', {
      timeout: 120_000,
    }, async () => {
      const many = await engine.open()
      try {
        const { db } = many.database
        const counters = { counters_since_delta_snapshot: { messages: [1, 1] } }
        const saver = new ThreadbaseSaver(many.database, { userId: 'u' })
        for (const table of ['checkpoints', 'checkpoint_blobs', 'checkpoint_writes'])
          await sql`alter table ${sql.table(table)} set (autovacuum_enabled = false)`.execute(db)
        const list = Array.from({ length: 10_000 }, (_, i) => ({ i, text: 'x'.repeat(80) }))
        const config = await put(saver, at('t'), { list }, counters)
        await saver.putWrites(config, [['messages', 1]], 'task')
        // the same checkpoint, as the first of thousands, each the parent of the next
        const older = sql`to_char(n, 'FM000000') as checkpoint_id, to_char(n - 1, 'FM000000') as parent_id`
        await sql`
          insert into ${sql.table('checkpoints')} (user_id, thread_id, checkpoint_ns, checkpoint_id, parent_id, v, channels,
                                                   roots, metadata, codec, record)
          select user_id, thread_id, checkpoint_ns, ${older}, v, channels, roots, metadata, codec, record
            from ${sql.table('checkpoints')}, generate_series(1, 10000) n`.execute(db)
        await sql`
          insert into ${sql.table('checkpoint_writes')} (user_id, thread_id, checkpoint_ns, checkpoint_id, task_id, idx,
                                                         task_path, channel, type, codec, data)
          select user_id, thread_id, checkpoint_ns, to_char(n, 'FM000000'), task_id, idx, task_path, channel, type, codec, data
            from ${sql.table('checkpoint_writes')}, generate_series(1, 10000) n`.execute(db)
        expect(await saver.prune({ keepLatest: 5_000 })).toMatchObject({ checkpoints: 5_001 })
        expect(await saver.prune({ keepLatest: 1 })).toMatchObject({ checkpoints: 4_999 })
        expect(await valuesOf(saver, config)).toEqual({ list })
      } finally {
        await many.close()
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
      const mine = newSaver()
      const me = userId()
      for (const thread of ['s', 't']) {
        const first = await put(mine, at(thread), { list: [note(1)] }, { run_id: 'r1' })
        await mine.putWrites(first, [['x', 1]], 'task')
        await put(mine, first, { list: [note(1), note(2)] }, { run_id: 'r2' })
      }
      const stranger = newSaver()
      await put(stranger, at('t'), { a: 1 }, { run_id: 'r1' })
      expect(await stranger.deleteForRuns(['r2'])).toMatchObject({ checkpoints: 0 })
      expect(await mine.deleteForRuns(['r1', 'none'])).toMatchObject({ checkpoints: 2, writes: 2 })
      expect(await valuesOf(mine, at('s'))).toEqual({ list: [note(1), note(2)] })
      expect(await mine.deleteForRuns(['r2'])).toMatchObject({ checkpoints: 2 })
      expect(await countRows(me)).toEqual(NO_ROWS)
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
  })
}
