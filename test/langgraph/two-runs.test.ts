import type { RunnableConfig } from '@langchain/core/runnables'
import { Annotation, START, StateGraph } from '@langchain/langgraph'
import type { CheckpointTuple } from '@langchain/langgraph-checkpoint'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type SaverOptions, ThreadbaseSaver } from '../../src/checkpoints/service.ts'
import { engines, type TestDatabase } from '../harness.ts'
import { collect } from './compare.ts'

const State = Annotation.Root({
  log: Annotation<string[]>({ reducer: (left, right) => [...left, ...right], default: () => [] }),
})

const graphOn = (checkpointer: ThreadbaseSaver) =>
  new StateGraph(State)
    .addNode('meet', ({ log }) => ({ log: [`${log.at(-1)} met`] }))
    .addNode('part', ({ log }) => ({ log: [`parted after ${log.length}`] }))
    .addEdge(START, 'meet')
    .addEdge('meet', 'part')
    .compile({ checkpointer })

/** Goes on from what it read first only when the others have read, too. */
class WaitingSaver extends ThreadbaseSaver {
  allHaveRead: (() => Promise<void>) | undefined

  override async getTuple(config: RunnableConfig): Promise<CheckpointTuple | undefined> {
    const tuple = await super.getTuple(config)
    const wait = this.allHaveRead
    this.allHaveRead = undefined
    await wait?.()
    return tuple
  }
}

/** Opens once so many have come. */
function createGate(count: number): () => Promise<void> {
  const open = Promise.withResolvers<void>()
  let left = count
  return () => {
    if (--left === 0) open.resolve()
    return open.promise
  }
}

for (const engine of engines) {
  describe.skipIf(!engine.available)(`two runs of one thread on ${engine.name}`, () => {
    let opened: TestDatabase
    beforeAll(async () => {
      opened = await engine.open()
    })
    afterAll(() => opened?.close())
    let users = 0

    /** Two servers read the same state before either of them stores a step. */
    async function runTwo(durability: 'sync' | 'async' | 'exit', options: SaverOptions) {
      const userId = `user-${++users}`
      const config = { configurable: { thread_id: 't' }, durability }
      const newSaver = () => new WaitingSaver(opened.database, { ...options, userId })
      await graphOn(newSaver()).invoke({ log: ['begun'] }, config)
      const gate = createGate(2)
      const runs = [0, 1].map((i) => {
        const saver = newSaver()
        saver.allHaveRead = gate
        return graphOn(saver).invoke({ log: [`run ${i}`] }, config)
      })
      return { outcomes: await Promise.allSettled(runs), graph: graphOn(newSaver()), config }
    }
    const codesOf = (outcomes: PromiseSettledResult<unknown>[]) =>
      outcomes.map((outcome) => (outcome.status === 'rejected' ? outcome.reason.code : 'done')).sort()

    for (const durability of ['sync', 'async', 'exit'] as const) {
      test(`with rejected conflicts one of them fails, and the thread is the other's: ${durability}`, async () => {
        const { outcomes, graph, config } = await runTwo(durability, { concurrency: 'reject' })
        expect(codesOf(outcomes)).toEqual(['conflict', 'done'])
        const winner = outcomes.find(({ status }) => status === 'fulfilled') as { value: { log: string[] } }
        const { values, next } = await graph.getState(config)
        expect({ values, next }).toEqual({ values: winner.value, next: [] })
        const loser = outcomes.findIndex(({ status }) => status === 'rejected')
        for (const { values } of await collect(graph.getStateHistory(config))) {
          expect(values.log).not.toContain(`run ${loser}`)
        }
      })

      test(`otherwise both are stored, each with its own values, and the newest goes on: ${durability}`, async () => {
        const { outcomes, graph, config } = await runTwo(durability, {})
        expect(codesOf(outcomes)).toEqual(['done', 'done'])
        const ends = (await collect(graph.getStateHistory(config))).filter(({ next }) => next.length === 0)
        const logs = ends.map(({ values }) => values.log as string[])
        const own = (run: number) => [
          'begun',
          'begun met',
          'parted after 2',
          `run ${run}`,
          `run ${run} met`,
          'parted after 5',
        ]
        expect(logs).toContainEqual(own(0))
        expect(logs).toContainEqual(own(1))
        expect((await graph.getState(config)).values.log).toEqual(logs[0])
      })
    }
  })
}
