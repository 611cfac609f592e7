import { Annotation, START, StateGraph } from '@langchain/langgraph'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { engines, type TestDatabase } from '../harness.ts'
import { collect } from './compare.ts'

const State = Annotation.Root({
  said: Annotation<string[]>({ reducer: (left, right) => [...left, ...right], default: () => [] }),
})

/** Remembers every word of its user, in whatever thread, and says what it has heard before. */
const builder = new StateGraph(State)
  .addNode('remember', async ({ said }, { store }) => {
    const word = said.at(-1) ?? ''
    const before = (await store?.search(['words'], { limit: 100 })) ?? []
    await store?.put(['words'], word, { word, length: word.length })
    const longest = await store?.search(['words'], { filter: { length: { $gte: word.length } } })
    return { said: [`heard ${before.map(({ key }) => key).sort()}; ${longest?.length} as long`] }
  })
  .addEdge(START, 'remember')

for (const engine of engines) {
  describe.skipIf(!engine.available)(`graphs of several users on ${engine.name}`, () => {
    let opened: TestDatabase
    beforeAll(async () => {
      opened = await engine.open()
    })
    afterAll(() => opened?.close())

    test('a graph for each user: threads and memories are their own, under the same names', async () => {
      const graphOf = (user: string) => {
        const { checkpointer, store } = opened.tb.forUser(user)
        return builder.compile({ checkpointer, store })
      }
      const at = (thread_id: string) => ({ configurable: { thread_id } })
      await graphOf('ada').invoke({ said: ['one'] }, at('t'))
      await graphOf('ada').invoke({ said: ['three'] }, at('other'))
      await graphOf('ben').invoke({ said: ['two'] }, at('t'))
      const { said } = await graphOf('ada').invoke({ said: ['four'] }, at('t'))
      expect(said).toEqual(['one', 'heard ; 1 as long', 'four', 'heard one,three; 2 as long'])
      expect((await graphOf('ben').getState(at('t'))).values).toEqual({ said: ['two', 'heard ; 1 as long'] })
      expect(await collect(graphOf('ben').getStateHistory(at('other')))).toEqual([])
      expect((await graphOf('cid').getState(at('t'))).values).toEqual({})
    })

    test('one graph for all users: the config says whose run it is', async () => {
      const { tb } = opened
      const graph = builder.compile({ checkpointer: tb.checkpointer })
      const as = (user_id: string) => ({
        configurable: { thread_id: 'shared', user_id },
        store: tb.forUser(user_id).store,
      })
      await Promise.all(['eve', 'fay'].map((user) => graph.invoke({ said: [user] }, as(user))))
      await graph.invoke({ said: ['again'] }, as('eve'))
      expect((await graph.getState(as('eve'))).values).toEqual({
        said: ['eve', 'heard ; 1 as long', 'again', 'heard eve; 1 as long'],
      })
      expect((await graph.getState(as('fay'))).values).toEqual({ said: ['fay', 'heard ; 1 as long'] })
      // the config of a snapshot names the user, too, so that it can be gone back to as it is
      const [, , , first] = await collect(graph.getStateHistory(as('eve')))
      expect(first?.config.configurable).toMatchObject({ user_id: 'eve', thread_id: 'shared' })
      const back = await graph.getState(first?.config ?? {})
      expect(back).toEqual(first)
      const fork = await graph.updateState(back.config, { said: ['forked'] })
      expect((await graph.getState(fork)).values).toEqual({ said: [...back.values.said, 'forked'] })
      expect((await graph.getState(as('eve'))).values.said).toContain('forked')
      // and is what forUser finds
      const own = builder.compile({ checkpointer: tb.forUser('eve').checkpointer })
      expect((await own.getState({ configurable: { thread_id: 'shared' } })).values.said).toContain('forked')
    })

    test('a run for nobody is refused', async () => {
      const graph = builder.compile({ checkpointer: opened.tb.checkpointer })
      const nobody = { configurable: { thread_id: 'shared' } }
      const refused = { code: 'invalid_input', details: { field: 'configurable.user_id' } }
      await expect(graph.invoke({ said: ['x'] }, nobody)).rejects.toMatchObject(refused)
      await expect(graph.getState(nobody)).rejects.toMatchObject(refused)
      const own = builder.compile({ checkpointer: opened.tb.forUser('eve').checkpointer })
      await expect(own.invoke({ said: ['x'] }, { configurable: {} })).rejects.toMatchObject({
        code: 'invalid_input',
        details: { field: 'configurable.thread_id' },
      })
    })
  })
}
