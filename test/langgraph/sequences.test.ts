import type { RunnableConfig } from '@langchain/core/runnables'
import {
  Annotation,
  Command,
  interrupt,
  type MemorySaver,
  Send,
  START,
  StateGraph,
} from '@langchain/langgraph'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, test } from 'vitest'
import type { ThreadbaseSaver } from '../../src/checkpoints/service.ts'
import { engines, type TestDatabase } from '../harness.ts'
import { type Build, type Graph, type Pair, type Side, startPair } from './compare.ts'

const State = Annotation.Root({
  list: Annotation<object[]>({ reducer: (left, right) => [...left, ...right], default: () => [] }),
  sum: Annotation<number>({ reducer: (left, right) => left + right, default: () => 0 }),
  last: Annotation<unknown>(),
})
type Values = Partial<typeof State.State>

const note = (text: string) => ({ text, padding: text.repeat(30) })

const inner = new StateGraph(State)
  .addNode('ask', ({ sum }) => ({ list: [note(interrupt<string, string>(`how about ${sum}?`))] }))
  .addEdge(START, 'ask')

/** What comes of a turn depends on the sum: it asks inside of a subgraph, works on parts at once, fails, or just ends. */
const build: Build = (checkpointer) =>
  new StateGraph(State)
    .addNode('start', ({ sum }) => ({ list: [note(`turn at ${sum}`)] }))
    .addNode('child', inner.compile())
    .addNode('part', ({ sum }: Values) => ({ list: [note(`part ${sum}`)], sum: sum ?? 0 }))
    .addNode('fail', ({ sum, list }) => {
      if (list.length % 2 === 0) throw new Error(`failed at ${sum}`)
      return { sum: 1 }
    })
    .addNode('end', ({ list, sum }) => ({ last: { length: list.length, sum } }))
    .addEdge(START, 'start')
    .addConditionalEdges('start', ({ sum }) => {
      if (sum % 5 === 1) return 'child'
      if (sum % 5 === 2) return 'fail'
      if (sum % 5 === 3) return [1, 2, 3].map((n) => new Send('part', { sum: n }))
      return 'end'
    })
    .addEdge('child', 'end')
    .addEdge('part', 'end')
    .addEdge('fail', 'end')
    .compile({ checkpointer }) as unknown as Graph

const durability = fc.constantFrom('sync' as const, 'async' as const, 'exit' as const)
const pick = fc.nat(1_000)
const values = fc.record(
  {
    list: fc.array(fc.string({ maxLength: 12 }).map(note), { maxLength: 12 }),
    sum: fc.integer({ min: 0, max: 4 }),
    last: fc.jsonValue({ maxDepth: 2 }).map((value) => JSON.parse(JSON.stringify(value)) as unknown),
  },
  { requiredKeys: [] },
)
const operation = fc.oneof(
  { weight: 5, arbitrary: fc.record({ do: fc.constant('invoke' as const), values, durability }) },
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constant('resume' as const),
      answer: fc.string({ maxLength: 9 }),
      durability,
    }),
  },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('go on' as const), durability }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('go back' as const), to: pick, durability }) },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constant('update' as const),
      at: fc.option(pick),
      values,
      as: fc.constantFrom(undefined, 'start', 'end'),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({ do: fc.constant('prune' as const), keepLatest: fc.integer({ min: 0, max: 5 }) }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('delete' as const) }) },
)
type Operation = typeof operation extends fc.Arbitrary<infer T> ? T : never

/** A checkpoint of the thread, counted from the newest; none when there is none. */
const configAt = ({ history, config }: Side, nth: number): RunnableConfig =>
  history[nth % Math.max(1, history.length)]?.config ?? config

function act({ ours }: Pair, one: Operation): (side: Side) => Promise<unknown> {
  switch (one.do) {
    case 'invoke':
      return ({ graph, config }) => graph.invoke(one.values, { ...config, durability: one.durability })
    case 'resume':
      return ({ graph, config }) =>
        graph.invoke(new Command({ resume: one.answer }), { ...config, durability: one.durability })
    case 'go on':
      return ({ graph, config }) => graph.invoke(null, { ...config, durability: one.durability })
    case 'go back':
      return (side) => side.graph.invoke(null, { ...configAt(side, one.to), durability: one.durability })
    case 'update':
      return (side) => {
        const config = one.at === null ? side.config : configAt(side, one.at)
        return side.graph.updateState(config, one.values, one.as)
      }
    case 'prune':
      return async (side) => {
        if (side === ours) {
          const options = { threadIds: ['thread'], keepLatest: one.keepLatest }
          await (side.saver as ThreadbaseSaver).prune(options)
        } else pruneMemory(side.saver as MemorySaver, one.keepLatest)
      }
    case 'delete':
      return ({ saver, config }) => saver.deleteThread(config.configurable.thread_id)
  }
}

/** What MemorySaver lacks: of each namespace only the newest stay. */
function pruneMemory({ storage, writes }: MemorySaver, keepLatest: number): void {
  const namespaces = storage.thread ?? {}
  for (const [ns, checkpoints] of Object.entries(namespaces)) {
    const ids = Object.keys(checkpoints).sort()
    for (const id of ids.slice(0, Math.max(0, ids.length - keepLatest))) {
      delete checkpoints[id]
      delete writes[JSON.stringify(['thread', ns, id])]
    }
    if (Object.keys(checkpoints).length === 0) delete namespaces[ns]
  }
}

for (const engine of engines) {
  describe.skipIf(!engine.available)(`any use of a graph as with MemorySaver on ${engine.name}`, () => {
    let opened: TestDatabase
    beforeAll(async () => {
      opened = await engine.open()
    })
    afterAll(() => opened?.close())
    let users = 0

    test('turns, answers, failures, forks, updates, prunes and deletes in any order', {
      timeout: 300_000,
    }, async () => {
      await fc.assert(
        fc.asyncProperty(
          fc.array(operation, { minLength: 2, maxLength: 10, size: 'max' }),
          async (operations) => {
            const pair = startPair(opened, `user-${++users}`, build)
            for (const one of operations) await pair.anyStep(act(pair, one))
            await pair.compareAll()
          },
        ),
        { numRuns: 25, endOnFailure: true },
      )
    })
  })
}
