import { END, MessagesAnnotation, START, StateGraph } from '@langchain/langgraph'
import type { BaseCheckpointSaver } from '@langchain/langgraph-checkpoint'
import { message, messages } from './checkpoint-state.ts'
import type { Bench } from './checkpoints.ts'
import { alternate, ms, type Row, timed, warmUp } from './harness.ts'

const NODES = 10
const RUNS = 6
const WARM_UP_S = 4
const TARGET = 3

let threads = 0

/** Ten nodes in a row, each of which adds a message of 1 KB to a thread that has 100 KB of them. */
function compile(checkpointer?: BaseCheckpointSaver) {
  const names = Array.from({ length: NODES }, (_, i) => `node${i + 1}`)
  const graph = new StateGraph(MessagesAnnotation)
  for (const name of names) graph.addNode(name, () => ({ messages: [message()] }))
  const path = [START, ...names, END]
  const link = graph.addEdge.bind(graph) as (from: string, to: string) => void
  for (const [i, name] of path.slice(1).entries()) link(path[i] as string, name)
  return graph.compile({ checkpointer })
}

export async function graphRows({ open, rounds }: Bench): Promise<Row[]> {
  const savers = await open('graph')
  const run = (checkpointer?: BaseCheckpointSaver) => {
    const graph = compile(checkpointer)
    return async () => {
      let spent = 0
      for (let i = 0; i < RUNS; i++) {
        const config = { configurable: { thread_id: `graph-${++threads}` } }
        const state = messages(100)
        if (checkpointer !== undefined) await graph.updateState(config, { messages: state })
        const input = { messages: checkpointer === undefined ? [...state, message()] : [message()] }
        spent += (await timed(() => graph.invoke(input, { ...config, durability: 'sync' }))).ms
      }
      return spent / RUNS
    }
  }
  const contestants = {
    none: run(),
    peer: run(savers.peer.saver as BaseCheckpointSaver),
    ours: run(savers.ours.saver as BaseCheckpointSaver),
  }
  await warmUp(WARM_UP_S, ...Object.values(contestants))
  const spent = await alternate(rounds, contestants)
  const ratio = spent.peer / spent.ours
  return [
    {
      work: 'a graph of 10 nodes, 100 KB, durability sync',
      figure: ms(spent.ours),
      limit: `peer ${ms(spent.peer)}`,
      ratio,
      target: `≥ ${TARGET}`,
      met: ratio >= TARGET,
      raw: `no saver ${ms(spent.none)}`,
      rawRatio: spent.none / spent.ours,
    },
  ]
}
