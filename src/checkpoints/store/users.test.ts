import { setTimeout as delay } from 'node:timers/promises'
import { Annotation, END, START, StateGraph } from '@langchain/langgraph'
import { sql } from 'kysely'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { engines, type TestDatabase } from '../../../test/harness.ts'
import { storesOn } from '../../../test/stores.ts'
import * as repo from './repo.ts'

async function refuseAfter(ms: number): Promise<never> {
  await delay(ms, undefined, { ref: false })
  throw new Error('it waits')
}

for (const engine of engines) {
  describe.skipIf(!engine.available)(`the users of the store on ${engine.name}`, () => {
    let opened: TestDatabase
    beforeAll(async () => {
      opened = await engine.open()
    })
    afterAll(() => opened?.close())
    const { newStore } = storesOn(() => opened)

    test('one finds nothing of the other', async () => {
      const [a, b] = [opened.tb.forUser('store-a').store, opened.tb.forUser('store-b').store]
      await a.put(['n'], 'k', { text: 'secret' })
      await b.put(['n'], 'k', { text: 'other' })
      expect((await b.get(['n'], 'k'))?.value).toEqual({ text: 'other' })
      expect(await b.search([], { query: 'secret' })).toEqual([])
      await b.delete(['n'], 'k')
      expect(await b.listNamespaces()).toEqual([])
      expect((await a.get(['n'], 'k', { userId: 'store-b' }))?.value).toEqual({ text: 'secret' })
    })

    test('a store of nobody has the user of the call, or the default', async () => {
      const { store: any } = opened.tb
      await any.put(['n'], 'k', { of: 'c' }, undefined, { userId: 'store-c' })
      expect((await any.get(['n'], 'k', { userId: 'store-c' }))?.value).toEqual({ of: 'c' })
      expect(await any.search([], { userId: 'store-d' })).toEqual([])
      await expect(any.search([])).rejects.toMatchObject({
        code: 'invalid_input',
        details: { field: 'userId' },
      })
      const mine = newStore({ userId: undefined, defaultUserId: 'store-c' })
      expect((await mine.get(['n'], 'k'))?.value).toEqual({ of: 'c' })
    })

    test.skipIf(engine.name === 'pglite')(
      'a put of one does not wait for that of another, nor for small numbers that an application locks',
      async () => {
        const { db } = opened.database
        const [a, b] = [newStore({ userId: 'lock-a' }), newStore({ userId: 'lock-b' })]
        const row = {
          path: 'n\u0001',
          key: 'k',
          namespace: ['n'],
          value: '{}',
          words: null,
          ttlS: null,
          vectors: [],
        }
        await db.transaction().execute(async (tx) => {
          await sql`select pg_advisory_xact_lock(n) from generate_series(0, 63) n`.execute(tx)
          await repo.putItems(tx, 'lock-a', [row], 0)
          await Promise.race([b.put(['n'], 'k', { of: 'b' }), refuseAfter(30_000)])
          expect((await b.get(['n'], 'k'))?.value).toEqual({ of: 'b' })
        })
        expect((await a.get(['n'], 'k'))?.value).toEqual({})
      },
    )

    const State = Annotation.Root({ seen: Annotation<string[]> })
    const namesIn = (found: { value: Record<string, unknown> }[] = []) =>
      found.map(({ value }) => String(value.name))
    /** It stores the name of its user and then reads all that there is, through the store of the run. */
    const builder = new StateGraph(State)
      .addNode('write', async (_, { store: memory, configurable }) => {
        await memory?.put(['facts'], 'me', { name: configurable?.user_id })
        return {}
      })
      .addNode('read', async (_, { store: memory }) => ({ seen: namesIn(await memory?.search([])) }))
      .addEdge(START, 'write')
      .addEdge('write', 'read')
      .addEdge('read', END)
    const names = ['run-1', 'run-2', 'run-3']

    test('a graph takes the store of a user with each run, for runs at the same time too', async () => {
      const graph = builder.compile()
      const run = (user_id: string) =>
        graph.invoke({ seen: [] }, { configurable: { user_id }, store: opened.tb.forUser(user_id).store })
      const results = await Promise.all(names.map(run))
      expect(results.map(({ seen }) => seen)).toEqual(names.map((name) => [name]))
    })

    test('a graph that is compiled with the store of nobody is refused', async () => {
      const graph = builder.compile({ store: opened.tb.store })
      const running = graph.invoke({ seen: [] }, { configurable: { user_id: 'run-1' } })
      await expect(running).rejects.toMatchObject({ code: 'invalid_input', details: { field: 'userId' } })
    })

    test('a node that calls the store of nobody itself calls it for the user of its run', async () => {
      const { store: any } = opened.tb
      const graph = new StateGraph(State)
        .addNode('both', async (_, { configurable }) => {
          await any.put(['own'], 'me', { name: configurable?.user_id })
          return { seen: namesIn(await any.search(['own'])) }
        })
        .addEdge(START, 'both')
        .addEdge('both', END)
        .compile()
      const run = (user_id: string) => graph.invoke({ seen: [] }, { configurable: { user_id } })
      const results = await Promise.all(names.map(run))
      expect(results.map(({ seen }) => seen)).toEqual(names.map((name) => [name]))
      await expect(graph.invoke({ seen: [] })).rejects.toMatchObject({ code: 'invalid_input' })
    })
  })
}
