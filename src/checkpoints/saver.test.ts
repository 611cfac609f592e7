import { HumanMessage } from '@langchain/core/messages'
import type { CheckpointTuple } from '@langchain/langgraph-checkpoint'
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
  describe.skipIf(!engine.available)(`the checkpointer on ${engine.name}`, () => {
    let opened: TestDatabase
    beforeAll(async () => {
      opened = await engine.open()
    })
    afterAll(() => opened?.close())
    const { userId, newSaver, sameUser, countRows } = saversOn(() => opened)

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

    test('a write to a channel with the name of a method of every object has a place of its own', async () => {
      const saver = newSaver()
      const config = await put(saver, at('t'), {})
      const channels = ['a', 'constructor', 'toString', '__proto__', 'z']
      const writes = channels.map((channel, i): [string, number] => [channel, i])
      await saver.putWrites(config, writes, 'task')
      const expected = writes.map(([channel, value]) => ['task', channel, value])
      expect((await saver.getTuple(config))?.pendingWrites).toEqual(expected)
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

    test('so it is in an element that is too large to be remembered whole', async () => {
      const saver = newSaver()
      const embedding = Array.from({ length: 5_000 }, (_, i) => i)
      const list = [{ id: 'large', embedding, deep: { n: { of: 1 } } }]
      const first = await put(saver, at('t'), { list })
      const [item] = list as [(typeof list)[0]]
      item.deep.n.of = 2
      const second = await put(saver, first, { list })
      expect(await valuesOf(sameUser(), second)).toEqual({ list })
    })

    test('a long list that grows, is cut, forked and changed in place is at every step what it was', async () => {
      const saver = newSaver()
      let random = 7
      const upTo = (n: number) => {
        random = (Math.imul(random, 1_103_515_245) + 12_345) >>> 0
        return Math.floor((random / 2 ** 32) * n)
      }
      let list: Record<string, unknown>[] = Array.from({ length: 150 }, (_, i) => note(i))
      const change = (kind: number, place: number) => {
        const one = list[place] as Record<string, unknown>
        if (kind === 0) one.content = long(upTo(1_000))
        if (kind === 1) one[`field${upTo(3)}`] = upTo(9)
        if (kind === 2) delete one[`field${upTo(3)}`]
        if (kind === 3) {
          // the same value by another name
          const { id } = one
          delete one.id
          one.name = id ?? 'none'
        }
        if (kind === 4) list = list.toSpliced(place, 1)
        if (kind === 5) list = list.toSpliced(place, 0, note(`new ${upTo(99)}`))
      }
      const puts: { config: Config; list: unknown[] }[] = []
      for (let step = 0; step < 40; step++) {
        list = [...list, ...Array.from({ length: upTo(8) }, () => note(`step ${step} ${upTo(999)}`))]
        if (step % 2 === 1) change(upTo(6), upTo(list.length))
        const parent = puts[step % 7 === 6 ? upTo(puts.length) : puts.length - 1]?.config ?? at('t')
        puts.push({ config: await put(saver, parent, { list }), list: structuredClone(list) })
      }
      const fresh = sameUser()
      for (const { config, list } of puts) expect((await valuesOf(fresh, config))?.list).toEqual(list)
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
        // longer than an index takes
        ['configurable.thread_id', () => put(saver, at('t'.repeat(10_000)), {})],
        ['configurable.checkpoint_ns', () => put(saver, at('t', undefined, 'n'.repeat(2_400)), {})],
        ['checkpoint.id', () => saver.put(good, checkpointOf({}, { id: 'é'.repeat(1_200) }), META, {})],
        ['task id', () => saver.putWrites(at('t', '1'), [['a', 1]], 'x'.repeat(2_400))],
      ]
      for (const [field, call] of cases) {
        await expect(call(), field).rejects.toMatchObject({ code: 'invalid_input', details: { field } })
      }
      expect(await countRows()).toEqual(NO_ROWS)
    })

    test('a checkpointer of nobody in particular goes by configurable.user_id, and keeps it in its answers', async () => {
      const saver = newSaver({ userId: undefined })
      const [a, b] = [`${userId()}-a`, `${userId()}-b`]
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
  })
}
