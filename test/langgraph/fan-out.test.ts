import { Annotation, Command, interrupt, Send, START, StateGraph } from '@langchain/langgraph'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { engines, type TestDatabase } from '../harness.ts'
import { type Build, type Graph, newest, run, type Side, startPair } from './compare.ts'

const State = Annotation.Root({
  items: Annotation<string[]>(),
  done: Annotation<string[]>({ reducer: (left, right) => [...left, ...right], default: () => [] }),
  total: Annotation<number>({ reducer: (left, right) => left + right, default: () => 0 }),
  summary: Annotation<string>(),
})

/** How often each item was worked on, and which are to fail the next time, of one graph. */
type Work = { runs: Map<string, number>; failing: Set<string> }

/** Works on all items at the same time; one of them may fail, or ask a person. */
function buildFanOut(works: Work[]): Build {
  return (checkpointer) => {
    const work: Work = { runs: new Map(), failing: new Set() }
    works.push(work)
    const workOn = async ({ item }: { item: string }) => {
      work.runs.set(item, (work.runs.get(item) ?? 0) + 1)
      if (work.failing.delete(item)) {
        // not before the others are done
        await new Promise((resolve) => setTimeout(resolve, 30))
        throw new Error(`${item} failed`)
      }
      const answer = item.startsWith('ask') ? interrupt<string, string>(`how about ${item}?`) : 'ok'
      return { done: [`${item}: ${answer}`], total: item.length }
    }
    return new StateGraph(State)
      .addNode('plan', ({ items }) => ({ items: items.map((item) => item.toLowerCase()) }))
      .addNode('work', workOn)
      .addNode('audit', async () => ({ done: ['audited'] }))
      .addNode('sum', ({ done, total }) => ({ summary: `${done.length} done, ${total} letters` }))
      .addEdge(START, 'plan')
      .addConditionalEdges('plan', ({ items }) => [
        ...items.map((item) => new Send('work', { item })),
        new Send('audit', {}),
      ])
      .addEdge('work', 'sum')
      .addEdge('audit', 'sum')
      .compile({ checkpointer }) as unknown as Graph
  }
}

for (const engine of engines) {
  describe.skipIf(!engine.available)(`parallel tasks as with MemorySaver on ${engine.name}`, () => {
    let opened: TestDatabase
    beforeAll(async () => {
      opened = await engine.open()
    })
    afterAll(() => opened?.close())
    let users = 0
    const newPair = () => {
      const works: Work[] = []
      const pair = startPair(opened, `user-${++users}`, buildFanOut(works))
      const runsOf = (side: Side) => Object.fromEntries((works[side === pair.ours ? 0 : 1] as Work).runs)
      const failNext = (item: string) => {
        for (const { failing } of works) failing.add(item)
      }
      return { ...pair, runsOf, failNext }
    }
    const items = ['ALPHA', 'BETA', 'GAMMA', 'DELTA']

    for (const durability of ['sync', 'async', 'exit'] as const) {
      test(`of several tasks one fails: the others are not run again when it is resumed: ${durability}`, async () => {
        const { ours, theirs, step, failingStep, compareAll, runsOf, failNext } = newPair()
        failNext('beta')
        expect((await failingStep(run({ items }, { durability }))).message).toBe('beta failed')
        const waiting = ours.history[0]?.tasks ?? []
        expect(waiting.map(({ error, result }) => [error !== undefined, result !== undefined])).toEqual([
          [false, true],
          [true, false],
          [false, true],
          [false, true],
          [false, true],
        ])
        await step(run(null, { durability }))
        for (const side of [ours, theirs]) {
          expect(runsOf(side)).toEqual({ alpha: 1, beta: 2, gamma: 1, delta: 1 })
        }
        expect(ours.history[0]?.values).toMatchObject({
          done: ['alpha: ok', 'beta: ok', 'gamma: ok', 'delta: ok', 'audited'],
          summary: '5 done, 19 letters',
        })
        await compareAll()
      })

      test(`of several tasks two ask: answered one by one, and both at once: ${durability}`, async () => {
        const { ours, step, compareAll, runsOf } = newPair()
        const asking = { items: ['ask one', 'b', 'ask two', 'd'] }
        const answer =
          (...which: number[]) =>
          (side: Side) => {
            const open = side.history[0]?.tasks.flatMap(({ interrupts }) => interrupts) ?? []
            const resume = Object.fromEntries(which.map((i) => [open[i]?.id ?? '', `answer ${i}`]))
            return run(new Command({ resume }), { durability })(side)
          }
        await step(run(asking, { durability }))
        await step(answer(1))
        await step(answer(0))
        expect(ours.history[0]?.values.summary).toMatch(/^5 done/)
        expect(runsOf(ours)).toMatchObject({ b: 1, d: 1 })
        await step(run(asking, { durability }))
        await step(answer(0, 1))
        await compareAll()
      })
    }

    test('time travel to before the tasks, to a failed one, and values given by hand while some are done', async () => {
      const { ours, step, failingStep, compareAll, failNext, runsOf } = newPair()
      await step(run({ items }))
      const before = (side: Side) => {
        const found = side.history.findLast(({ next }) => next.includes('work'))
        return found?.config ?? {}
      }
      failNext('gamma')
      await failingStep((side) => side.graph.invoke(null, before(side)))
      await step(run(null))
      const fork = await step((side) =>
        side.graph.updateState(before(side), { items: ['epsilon', 'zeta'] }, 'plan'),
      )
      expect(fork).toBeDefined()
      failNext('epsilon')
      await failingStep((side) => side.graph.invoke(null, newest(side)))
      await step((side) => side.graph.updateState(newest(side), { total: 1_000 }, 'audit'))
      await step(run(null))
      expect(ours.history[0]?.values.total).toBeGreaterThan(999)
      expect(runsOf(ours).zeta).toBe(1)
      await compareAll()
    })
  })
}
