import { Annotation, END, Send, START, StateGraph } from '@langchain/langgraph'
import type { BaseCheckpointSaver } from '@langchain/langgraph-checkpoint'
import type { Graph } from './compare.ts'

const ROUNDS = 16
const PARTS = [1, 2, 3]

const State = Annotation.Root({
  round: Annotation<number>({ reducer: (_, right) => right, default: () => 0 }),
  // a plain list: what was done twice would be seen twice
  log: Annotation<{ did: string; padding: string }[]>({
    reducer: (left, right) => [...left, ...right],
    default: () => [],
  }),
})
const did = (what: string) => [{ did: what, padding: what.repeat(40) }]

const part = new StateGraph(State)
  .addNode('half', ({ round }) => ({ log: did(`half ${round}`) }))
  .addNode('whole', ({ round }) => ({ log: did(`whole ${round}`) }))
  .addEdge(START, 'half')
  .addEdge('half', 'whole')

/** Rounds of a step, three parts at once and a subgraph, each of which says in the state that it was done. */
export function buildLongRun(checkpointer: BaseCheckpointSaver): Graph {
  return new StateGraph(State)
    .addNode('next', ({ round }) => ({ round: round + 1, log: did(`round ${round + 1}`) }))
    .addNode('part', async ({ round, n }: typeof State.State & { n: number }) => {
      await new Promise((resolve) => setTimeout(resolve, n * 2))
      return { log: did(`part ${n} of ${round}`) }
    })
    .addNode('child', async ({ round }, config) => {
      const { log } = await child.invoke({ round }, config)
      return { log }
    })
    .addEdge(START, 'next')
    .addConditionalEdges('next', ({ round }) => [
      ...PARTS.map((n) => new Send('part', { round, n })),
      new Send('child', { round }),
    ])
    .addConditionalEdges('part', ({ round }) => (round < ROUNDS ? 'next' : END))
    .addConditionalEdges('child', ({ round }) => (round < ROUNDS ? 'next' : END))
    .compile({ checkpointer }) as unknown as Graph
}
const child = part.compile()

/** What it has done when nothing came in between. */
export const WHOLE_LOG = Array.from({ length: ROUNDS }, (_, i) => i + 1).flatMap((round) => [
  `round ${round}`,
  ...PARTS.map((n) => `part ${n} of ${round}`),
  `half ${round}`,
  `whole ${round}`,
])
