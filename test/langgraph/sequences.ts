import type { RunnableConfig } from '@langchain/core/runnables'
import { Annotation, Command, DeltaChannel, interrupt, Send, START, StateGraph } from '@langchain/langgraph'
import {
  type CheckpointListOptions,
  type CheckpointTuple,
  MemorySaver,
} from '@langchain/langgraph-checkpoint'
import fc from 'fast-check'
import type { ThreadbaseSaver } from '../../src/checkpoints/service.ts'
import type { Build, Graph, Pair, Side } from './compare.ts'

const append = (state: object[], writes: object[][]) => [...state, ...writes.flat()]
const Plain = Annotation.Root({
  list: Annotation<object[]>({ reducer: (left, right) => append(left, [right]), default: () => [] }),
  sum: Annotation<number>({ reducer: (left, right) => left + right, default: () => 0 }),
  last: Annotation<unknown>(),
})
// the same with a list that is stored as what each step added, and whole now and then
const Delta = Annotation.Root({
  ...Plain.spec,
  list: () => new DeltaChannel(append, { snapshotFrequency: 3, initialValueFactory: () => [] }),
}) as unknown as typeof Plain
type Values = Partial<typeof Plain.State>

const note = (text: string) => ({ text, padding: text.repeat(30) })

const inner = new StateGraph(Plain)
  .addNode('ask', ({ sum }) => ({ list: [note(interrupt<string, string>(`how about ${sum}?`))] }))
  .addEdge(START, 'ask')

/** What comes of a turn depends on the sum: it asks inside of a subgraph, works on parts at once, fails, or just ends. */
const buildTurns =
  (State: typeof Plain): Build =>
  (checkpointer) =>
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

/** Both ways to keep the list. */
export const GRAPHS = { plain: buildTurns(Plain), delta: buildTurns(Delta) }

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
export const operation = fc.oneof(
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
export type Operation = typeof operation extends fc.Arbitrary<infer T> ? T : never

/** A checkpoint of the thread, counted from the newest; none when there is none. */
const configAt = ({ history, config }: Side, nth: number): RunnableConfig =>
  history[nth % Math.max(1, history.length)]?.config ?? config

export function act({ ours }: Pair, one: Operation): (side: Side) => Promise<unknown> {
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
        } else (side.saver as PrunableMemory).prune(one.keepLatest)
      }
    case 'delete':
      return ({ saver, config }) => saver.deleteThread(config.configurable.thread_id)
  }
}

/** LangGraph's saver in memory with a prune: what is gone is out of sight, and a DeltaChannel is still read through it. */
export class PrunableMemory extends MemorySaver {
  readonly #gone = new Set<unknown>()

  prune(keepLatest: number): void {
    for (const checkpoints of Object.values(this.storage.thread ?? {})) {
      const left = Object.keys(checkpoints).filter((id) => !this.#gone.has(id))
      for (const id of left.sort().slice(0, Math.max(0, left.length - keepLatest))) this.#gone.add(id)
    }
  }

  override async getTuple(config: RunnableConfig): Promise<CheckpointTuple | undefined> {
    const tuple = await super.getTuple(config)
    // the newest is gone only where all are
    return this.#gone.has(tuple?.checkpoint.id) ? undefined : tuple
  }

  override async *list(config: RunnableConfig, options?: CheckpointListOptions) {
    for await (const tuple of super.list(config, options)) {
      if (!this.#gone.has(tuple.checkpoint.id)) yield tuple
    }
  }
}
