import type { RunnableConfig } from '@langchain/core/runnables'
import type { StateSnapshot } from '@langchain/langgraph'
import { Annotation, Command, interrupt, START, StateGraph } from '@langchain/langgraph'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { engines, type TestDatabase } from '../harness.ts'
import { at, type Build, collect, type Graph, newest, run, type Side, startPair } from './compare.ts'

// each once: a subgraph gives back what it was given
const append = () =>
  Annotation<string[]>({ reducer: (left, right) => [...new Set([...left, ...right])], default: () => [] })
const State = Annotation.Root({ log: append(), kept: Annotation<number>() })
const ChildState = Annotation.Root({
  log: append(),
  own: append(),
  kept: Annotation<number>(),
})

/** Asks a person, two levels down. */
const grandchild = () =>
  new StateGraph(ChildState)
    .addNode('ask', ({ own }) => {
      const answer = interrupt<string, string>(`asked after ${own.length}`)
      return { log: [`asked: ${answer}`], own: [answer] }
    })
    .addEdge(START, 'ask')

const child = (checkpointer?: boolean) =>
  new StateGraph(ChildState)
    .addNode('begin', ({ own, log }) => ({
      log: ['child begins'],
      own: [`own ${own.length} of ${log.length}`],
    }))
    .addNode('inner', grandchild().compile({ checkpointer }))
    .addNode('finish', ({ own, kept = 0 }) => ({
      log: [`child ends with ${own.length}`],
      own: ['end'],
      kept: kept + 1,
    }))
    .addEdge(START, 'begin')
    .addEdge('begin', 'inner')
    .addEdge('inner', 'finish')

/** @param remembers whether the subgraph keeps its own state from run to run */
const buildParent =
  (remembers?: boolean): Build =>
  (checkpointer) =>
    new StateGraph(State)
      .addNode('first', ({ log }) => ({ log: [`first of ${log.length}`] }))
      .addNode('child', child(remembers).compile({ checkpointer: remembers }))
      .addNode('last', () => ({ log: ['last'] }))
      .addEdge(START, 'first')
      .addEdge('first', 'child')
      .addEdge('child', 'last')
      .compile({ checkpointer }) as unknown as Graph

/** The configs of the states below the newest one, the nearest first. */
async function configsBelow({ graph, config }: Side): Promise<RunnableConfig[]> {
  const configs: RunnableConfig[] = []
  let snapshot: StateSnapshot | undefined = await graph.getState(config, { subgraphs: true })
  while (snapshot !== undefined) {
    const state: unknown = snapshot.tasks.find((task) => task.state !== undefined)?.state
    snapshot = state as StateSnapshot | undefined
    if (snapshot !== undefined) configs.push(snapshot.config)
  }
  return configs
}
const logOf = ({ history }: Side) => history[0]?.values.log as string[]

for (const engine of engines) {
  describe.skipIf(!engine.available)(`subgraphs as with MemorySaver on ${engine.name}`, () => {
    let opened: TestDatabase
    beforeAll(async () => {
      opened = await engine.open()
    })
    afterAll(() => opened?.close())
    let users = 0
    const newPair = (build: Build) => startPair(opened, `user-${++users}`, build)

    for (const durability of ['sync', 'async', 'exit'] as const) {
      test(`an interrupt two levels down, seen from above and from below, and resumed: ${durability}`, async () => {
        const { ours, theirs, step, compareAll } = newPair(buildParent())
        await step(run({ log: ['in'] }, { durability }))
        const below = await configsBelow(ours)
        expect(below.map(({ configurable }) => configurable?.checkpoint_ns)).toEqual([
          expect.stringMatching(/^child:/),
          expect.stringMatching(/^child:.*\|inner:/),
        ])
        for (const level of [0, 1]) {
          const configs = new Map<Side, RunnableConfig>()
          for (const side of [theirs, ours]) configs.set(side, (await configsBelow(side))[level] ?? {})
          await step(async (side) => {
            const config = configs.get(side) ?? {}
            return [await side.graph.getState(config), await collect(side.graph.getStateHistory(config))]
          })
        }
        await step(run(new Command({ resume: 'red' }), { durability }))
        expect(logOf(ours)).toEqual([
          'in',
          'first of 1',
          'child begins',
          'asked: red',
          'child ends with 2',
          'last',
        ])
        await step(run({ log: ['more'] }, { durability }))
        await step(run(new Command({ resume: 'blue' }), { durability }))
        await compareAll()
      })
    }

    test('a subgraph that remembers, its state changed by hand while it waits', async () => {
      const { ours, step, compareAll } = newPair(buildParent(true))
      await step(run({ log: ['in'] }))
      await step(run(new Command({ resume: 'one' })))
      await step(run({ log: ['again'] }))
      await step(async (side) => {
        const [below = {}] = await configsBelow(side)
        return side.graph.updateState(below, { own: ['by hand'] })
      })
      await step(run(new Command({ resume: 'two' })))
      expect(logOf(ours)).toContain('child ends with 6')
      await compareAll()
    })

    test('time travel to before the subgraph, to inside of it, and a fork of the parent', async () => {
      const { ours, step, compareAll } = newPair(buildParent())
      await step(run({ log: ['in'] }))
      const inside = new Map<Side, RunnableConfig>()
      await step(async (side) => {
        inside.set(side, (await configsBelow(side))[1] ?? {})
      })
      await step(run(new Command({ resume: 'one' })))
      await step((side) => side.graph.invoke(null, at(side, 'child')))
      await step(run(new Command({ resume: 'two' })))
      expect(logOf(ours)).toContain('asked: two')
      await step((side) => side.graph.updateState(at(side, 'child', -1), { log: ['forked'] }))
      await step((side) => side.graph.invoke(null, newest(side)))
      await step(run(new Command({ resume: 'three' })))
      expect(logOf(ours)).toEqual(expect.arrayContaining(['forked', 'asked: three']))
      await step((side) => side.graph.getState(inside.get(side) ?? {}))
      await compareAll()
    })
  })
}
