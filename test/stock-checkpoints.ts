import { AIMessage, HumanMessage } from '@langchain/core/messages'
import {
  Annotation,
  Command,
  END,
  interrupt,
  MessagesAnnotation,
  Send,
  START,
  StateGraph,
} from '@langchain/langgraph'
import {
  type BaseCheckpointSaver,
  type Checkpoint,
  type CheckpointTuple,
  uuid6,
} from '@langchain/langgraph-checkpoint'
import { PostgresSaver } from '@langchain/langgraph-checkpoint-postgres'
import pg from 'pg'
import { afterAll, beforeAll, beforeEach } from 'vitest'
import { type AdoptOptions, adoptCheckpoints, ThreadbaseSaver } from '../src/checkpoints/service.ts'
import { engines, newSchemaName, postgresUrl, type TestDatabase } from './harness.ts'

const [, postgres] = engines
export const hasPostgres = postgres?.available === true

export const USER = { userId: 'local' }

export type Saver = PostgresSaver | ThreadbaseSaver

export async function collect<T>(items: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = []
  for await (const item of items) all.push(item)
  return all
}

export const plain = ({ config, checkpoint, metadata, parentConfig, pendingWrites }: CheckpointTuple) => ({
  id: config.configurable?.checkpoint_id,
  ns: config.configurable?.checkpoint_ns,
  checkpoint,
  metadata,
  parent: parentConfig?.configurable?.checkpoint_id,
  // the peer sorts by what its database takes for the order of texts
  pendingWrites: pendingWrites?.toSorted(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0)),
})

export const listAll = async (saver: Saver, threadId: string) =>
  (await collect(saver.list({ configurable: { thread_id: threadId } }))).map(plain).sort(byPlace)

export const byPlace = (a: { id: string; ns: string }, b: { id: string; ns: string }) =>
  `${a.ns} ${a.id}` < `${b.ns} ${b.id}` ? -1 : 1

/** A loop of answers that asks a person, fans out and has a graph below it. */
export function graphOn(checkpointer: unknown) {
  const State = Annotation.Root({
    ...MessagesAnnotation.spec,
    count: Annotation<number>,
    notes: Annotation<string[]>({ reducer: (a, b) => [...a, ...b], default: () => [] }),
  })
  const below = new StateGraph(State)
    .addNode('inner', ({ count }) => ({ notes: [`inner ${count} "\\ \u2028 \u{1f600}`] }))
    .addEdge(START, 'inner')
    .addEdge('inner', END)
    .compile()
  return new StateGraph(State)
    .addNode('answer', ({ messages }) => ({
      messages: [
        new AIMessage({ id: `a${messages.length}`, content: 'an answer of some length '.repeat(9) }),
      ],
      count: messages.length,
    }))
    .addNode('below', below)
    .addNode('part', ({ count }: { count: number }) => ({ notes: [`part ${count}`] }))
    .addNode('ask', () => ({ notes: [interrupt<string, string>('go on?')] }))
    .addEdge(START, 'answer')
    .addEdge('answer', 'below')
    .addConditionalEdges('below', () => [1, 2, 3].map((count) => new Send('part', { count })), ['part'])
    .addEdge('part', 'ask')
    .addEdge('ask', END)
    .compile({ checkpointer: checkpointer as BaseCheckpointSaver })
}

export const say = (text: string, id: string) => ({ messages: [new HumanMessage({ id, content: text })] })

export const historyOf = async (saver: Saver, threadId: string) =>
  (await collect(graphOn(saver).getStateHistory({ configurable: { thread_id: threadId } }))).map(
    ({ config, parentConfig, values, next, tasks, metadata, createdAt }) => ({
      id: config.configurable?.checkpoint_id,
      parent: parentConfig?.configurable?.checkpoint_id,
      values,
      next,
      tasks: tasks
        .map(({ id, name, interrupts, error }) => ({ id, name, interrupts, error }))
        .sort((a, b) => (a.id < b.id ? -1 : 1)),
      metadata,
      createdAt,
    }),
  )

/** A thread with forks, from time travel and from a changed state, that waits for an answer. */
export async function writeThread(saver: Saver, thread_id: string): Promise<void> {
  const graph = graphOn(saver)
  const config = { configurable: { thread_id } }
  await graph.invoke(say('hello', 'h1'), config)
  await graph.invoke(new Command({ resume: 'yes' }), config)
  await graph.invoke(say('and now?', 'h2'), config)
  const history = await collect(graph.getStateHistory(config))
  const early = history.find(({ next }) => next.includes('below'))
  await graph.invoke(null, early?.config)
  await graph.updateState(history.at(-3)?.config ?? config, say('another way', 'h3'))
}

export const checkpointOf = (
  values: Record<string, unknown>,
  step: number,
  fields: object = {},
): Checkpoint => ({
  v: 4,
  id: uuid6(step),
  ts: new Date(1_700_000_000_000 + step).toISOString(),
  channel_values: values,
  channel_versions: Object.fromEntries(Object.keys(values).map((name) => [name, step])),
  versions_seen: { node: { a: step } },
  ...fields,
})

// of the test that runs
export let opened: TestDatabase
export let pool: pg.Pool
export let schema: string
export let peer: PostgresSaver
export let own: ThreadbaseSaver
const schemas: string[] = []

/** Before each test new stock tables, written by LangGraph's own checkpointer, and none of our rows. */
export function useStockTables(): void {
  beforeAll(async () => {
    if (postgres === undefined) throw new Error('no engine')
    opened = await postgres.open()
    pool = new pg.Pool({ connectionString: postgresUrl ?? '', max: 4 })
  })
  afterAll(async () => {
    for (const name of schemas) await pool.query(`drop schema if exists ${name} cascade`)
    await pool.end()
    await opened.close()
  })
  beforeEach(async () => {
    for (const table of [
      'checkpoints',
      'checkpoint_blobs',
      'checkpoint_writes',
      'checkpoint_tombstones',
      'store',
    ])
      await pool.query(`delete from ${opened.database.schema}.${table}`)
    schema = newSchemaName()
    schemas.push(schema)
    peer = new PostgresSaver(pool, undefined, { schema })
    await peer.setup()
    own = new ThreadbaseSaver(opened.database, USER)
  })
}

export const adopt = (options: AdoptOptions = {}) =>
  adoptCheckpoints(opened.database, USER, { schema, ...options })
export const ownRows = async () => {
  const tables = ['checkpoints', 'checkpoint_blobs', 'checkpoint_writes', 'checkpoint_tombstones']
  const { schema: name } = opened.database
  const read = tables.map((table) => pool.query(`select x.* from ${name}.${table} x order by x::text`))
  return (await Promise.all(read)).map(({ rows }) => rows)
}
export const peerRows = async () => {
  const tables = ['checkpoints', 'checkpoint_blobs', 'checkpoint_writes']
  const read = tables.map((table) =>
    pool.query(`select x.*, x.xmin from ${schema}.${table} x order by x::text`),
  )
  return (await Promise.all(read)).map(({ rows }) => rows)
}
export const put = (
  saver: Saver,
  thread_id: string,
  checkpoint: Checkpoint,
  parent?: string,
  metadata = {},
) =>
  saver.put(
    { configurable: { thread_id, checkpoint_ns: '', checkpoint_id: parent } },
    checkpoint,
    { source: 'loop', step: 1, parents: {}, ...metadata },
    checkpoint.channel_versions,
  )
