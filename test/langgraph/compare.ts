import type { RunnableConfig } from '@langchain/core/runnables'
import type { StateSnapshot } from '@langchain/langgraph'
import { type BaseCheckpointSaver, type CheckpointTuple, MemorySaver } from '@langchain/langgraph-checkpoint'
import { expect } from 'vitest'
import { type SaverOptions, ThreadbaseSaver } from '../../src/checkpoints/service.ts'
import type { TestDatabase } from '../harness.ts'

/** What the tests use of a compiled graph. */
export type Graph = {
  invoke(input: unknown, config?: object): Promise<unknown>
  getState(config: RunnableConfig, options?: { subgraphs?: boolean }): Promise<StateSnapshot>
  getStateHistory(config: RunnableConfig): AsyncIterable<StateSnapshot>
  updateState(config: RunnableConfig, values: unknown, asNode?: string): Promise<RunnableConfig>
}
export type Build = (checkpointer: BaseCheckpointSaver) => Graph

/** One of two graphs that are the same but for their saver. */
export type Side = {
  graph: Graph
  saver: BaseCheckpointSaver
  /** Of the thread, with what a run of it needs beside. */
  config: { configurable: { thread_id: string } }
  /** As it was after the last step, the newest first. */
  history: StateSnapshot[]
}

export type Pair = {
  ours: Side
  theirs: Side
  /** Does the same to both, and holds what comes of it and all that can be read afterwards to each other. */
  step(act: Act): Promise<unknown>
  /** The same, whether it fails or not. */
  anyStep(act: Act): Promise<unknown>
  /** The same with what fails, and gives the error. */
  failingStep(act: Act): Promise<{ name: string; message: string }>
  /** Every checkpoint of every namespace: as the graph reads it, and as another process finds it stored. */
  compareAll(): Promise<void>
}

type Act = (side: Side) => Promise<unknown>
type Outcome = { value: unknown } | { error: { name: string; message: string } }
type Named = Side & { name: (value: unknown) => unknown; newReader: () => BaseCheckpointSaver }

/** A step: the graph gets this. */
export const run =
  (input: unknown, options: object = {}) =>
  (side: Side) =>
    side.graph.invoke(input, { ...side.config, ...options })
/** The config of the newest checkpoint that comes before a node, or before none; of the oldest with -1. */
export const at = ({ history }: Side, node: string | undefined, nth = 0) => {
  const found = history
    .filter(({ next }) => (node === undefined ? next.length === 0 : next.includes(node)))
    .at(nth)
  if (found === undefined) throw new Error(`nothing comes before ${node}`)
  return found.config
}
export const newest = ({ history }: Side) => history[0]?.config as RunnableConfig

/** A thread of a graph twice: with Threadbase's saver, and with LangGraph's own in memory. */
export function startPair(
  { database }: TestDatabase,
  userId: string,
  build: Build,
  { memory = new MemorySaver(), ...options }: { memory?: MemorySaver } & SaverOptions = {},
): Pair {
  const newSaver = () => new ThreadbaseSaver(database, { ...options, userId })
  const ours = newSide(build, newSaver(), newSaver)
  const theirs = newSide(build, memory, () => memory)

  const both = async <T>(act: (side: Named) => Promise<T>): Promise<T> => {
    const expected = theirs.name(await act(theirs))
    const result = await act(ours)
    expect(ours.name(result)).toStrictEqual(expected)
    return result
  }
  const take = async (act: Act): Promise<Outcome> => {
    const [outcome] = await both(async (side) => {
      const outcome: Outcome = await act(side).then(
        (value) => ({ value }),
        (error) => ({ error: { name: error.name, message: error.message } }),
      )
      return [outcome, await readStates(side)] as const
    })
    return outcome
  }
  return {
    ours,
    theirs,
    step: async (act) => {
      const outcome = await take(act)
      if ('error' in outcome) throw new Error(`the step failed with both savers: ${outcome.error.message}`)
      return outcome.value
    },
    anyStep: take,
    failingStep: async (act) => {
      const outcome = await take(act)
      if ('value' in outcome) throw new Error('the step did not fail')
      return outcome.error
    },
    compareAll: async () => {
      await both((side) => readEach(side, side.history))
      await both(readStored)
    },
  }
}

function newSide(build: Build, saver: BaseCheckpointSaver, newReader: () => BaseCheckpointSaver): Named {
  const config = { configurable: { thread_id: 'thread' } }
  return { graph: build(saver), saver, config, history: [], name: createNames(), newReader }
}

async function readStates(side: Side): Promise<unknown> {
  const { graph, config } = side
  const known = new Set(side.history.map(idOf))
  side.history = await collect(graph.getStateHistory(config))
  const fresh = side.history.filter((snapshot) => !known.has(idOf(snapshot)))
  return {
    now: await graph.getState(config),
    deep: await graph.getState(config, { subgraphs: true }),
    history: side.history,
    each: await readEach(side, fresh),
  }
}

const idOf = ({ config }: StateSnapshot): unknown => config.configurable?.checkpoint_id

async function readEach({ graph }: Side, snapshots: StateSnapshot[]): Promise<StateSnapshot[]> {
  const states: StateSnapshot[] = []
  for (const { config } of snapshots) states.push(await graph.getState(config, { subgraphs: true }))
  return states
}

async function readStored({ config, newReader }: Named): Promise<unknown> {
  const tuples = await collect(newReader().list(config))
  const namespaces = Map.groupBy(tuples, ({ config }) => String(config.configurable?.checkpoint_ns))
  // by the age of their first checkpoint, since their names hold random ids
  const aged = [...namespaces.values()].map((own) => ({ own, first: own.at(-1)?.checkpoint.id ?? '' }))
  aged.sort((a, b) => (a.first < b.first ? -1 : 1))
  return aged.map(({ own }) => own.map(pictureTuple))
}

/**
 * Without versions, which a saver numbers as it likes; and without the values of channels that have none, for nobody
 * wrote them: a first checkpoint holds their defaults with one saver, and lacks them with the other.
 */
function pictureTuple({ checkpoint, pendingWrites = [], ...rest }: CheckpointTuple): object {
  const { channel_values, channel_versions, versions_seen, ...others } = checkpoint
  const answers = pendingWrites.filter(([, channel]) => channel === '__resume__')
  const writes = pendingWrites.filter(([, channel]) => channel !== '__resume__')
  const written = Object.entries(channel_values).filter(([name]) => name in channel_versions)
  const seen = Object.entries(versions_seen).map(([node, versions]) => [node, Object.keys(versions).sort()])
  return {
    ...rest,
    ...others,
    // tasks without a path come in the order of their ids, which are random
    answers: answers.map(([, , value]) => JSON.stringify(value)).sort(),
    pendingWrites: writes,
    values: Object.fromEntries(written),
    versions: Object.keys(channel_versions).sort(),
    seen: Object.fromEntries(seen),
  }
}

const ID = /[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|\b[0-9a-f]{32}\b/g
const TIME = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/

/**
 * Values with their ids replaced by the order in which they were first seen, and with the classes of objects named: two
 * are the same exactly when nothing but the ids and the times differs.
 */
export function createNames(): (value: unknown) => unknown {
  const names = new Map<string, string>()
  const nameOf = (id: string) => {
    const name = names.get(id) ?? `#${names.size + 1}`
    names.set(id, name)
    return name
  }
  const nameText = (text: string) => (TIME.test(text) ? 'time' : text.replace(ID, nameOf))
  const name = (value: unknown): unknown => {
    if (typeof value === 'string') return nameText(value)
    if (typeof value === 'function') return 'function'
    if (typeof value !== 'object' || value === null) return value
    if (Array.isArray(value)) return value.map(name)
    if (value instanceof Map || value instanceof Set)
      return { class: value.constructor.name, items: [...value].map(name) }
    const prototype = Object.getPrototypeOf(value) as object | null
    // what a run carries along, which a saver in memory gives back with the config that it was asked with
    const keys = Object.keys(value)
      .filter((key) => !key.startsWith('__pregel_') || key === '__pregel_tasks')
      .sort()
    const fields = keys.map((key) => [nameText(key), name((value as Record<string, unknown>)[key])])
    const plain = prototype === null || prototype === Object.prototype
    return plain ? Object.fromEntries(fields) : { class: prototype?.constructor.name, fields }
  }
  return name
}

export async function collect<T>(items: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = []
  for await (const item of items) all.push(item)
  return all
}
