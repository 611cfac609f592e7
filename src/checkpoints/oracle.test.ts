import { AIMessage, HumanMessage, ToolMessage } from '@langchain/core/messages'
import { type Checkpoint, type CheckpointTuple, MemorySaver, uuid6 } from '@langchain/langgraph-checkpoint'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { engines, type TestDatabase } from '../../test/harness.ts'
import { ThreadbaseSaver } from './service.ts'

type Config = { configurable: Record<string, string | undefined> }
type Values = Record<string, unknown>

const text = fc.oneof(
  fc.string({ unit: 'binary', maxLength: 20 }),
  fc.string({ minLength: 130, maxLength: 400 }),
  fc.constantFrom('', '\0', '\ud800', '"\\\n', 'x'.repeat(6_000), '__proto__'),
)
// -0 is 0 in JSON
const json = fc.jsonValue({ maxDepth: 3 }).map((value) => JSON.parse(JSON.stringify(value)) as unknown)
const message = fc.oneof(
  text.map((content) => new HumanMessage({ content, id: 'h' })),
  text.map((content) => new AIMessage({ content, tool_calls: [{ name: 't', args: { content }, id: '1' }] })),
  text.map((content) => new ToolMessage({ content, tool_call_id: '1', name: 't' })),
)
const special = fc.constantFrom(
  () => new Set([1, 'a']),
  () => new Map([['k', { a: [1] }]]),
  () => /x\/"/gi,
  () => ({ big: 'y'.repeat(300), none: undefined }),
  () => [[], [undefined], [[1]], {}],
)
const element = fc.oneof(
  { weight: 3, arbitrary: text.map((content) => ({ role: 'user', content })) },
  { weight: 2, arbitrary: message },
  json,
  text,
  fc.integer(),
  special.map((make) => make()),
)

const change = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({ do: fc.constant('append' as const), items: fc.array(element, { maxLength: 40 }) }),
  },
  fc.record({
    do: fc.constant('splice' as const),
    at: fc.nat(100),
    cut: fc.nat(20),
    items: fc.array(element, { maxLength: 3 }),
  }),
  fc.record({
    do: fc.constant('scalar' as const),
    value: fc.oneof(
      json,
      text,
      message,
      special.map((make) => make()),
    ),
  }),
  fc.record({ do: fc.constant('edit' as const), at: fc.nat(100), content: text }),
  fc.constant({ do: 'drop' as const }),
)
const pick = fc.nat(1_000)
const step = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      op: fc.constant('put' as const),
      parent: pick,
      changes: fc.array(change, { maxLength: 3 }),
      ns: fc.nat(8),
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      op: fc.constant('writes' as const),
      to: pick,
      task: fc.nat(3),
      path: fc.constantFrom('', '~a', '~é', '~\u{1f600}', '~\uffee'),
      values: fc.array(element, { maxLength: 3 }),
      channel: fc.constantFrom('a', 'list', '__error__', '__interrupt__', '__pregel_tasks'),
    }),
  },
  { weight: 1, arbitrary: fc.record({ op: fc.constant('prune' as const), keep: fc.nat(4) }) },
  { weight: 1, arbitrary: fc.record({ op: fc.constant('forget' as const) }) },
  { weight: 1, arbitrary: fc.record({ op: fc.constant('delete' as const) }) },
)
type Step = typeof step extends fc.Arbitrary<infer T> ? T : never

const plain = ({ config, checkpoint, metadata, parentConfig, pendingWrites }: CheckpointTuple) => ({
  id: config.configurable?.checkpoint_id,
  ns: config.configurable?.checkpoint_ns,
  checkpoint,
  metadata,
  parent: parentConfig?.configurable?.checkpoint_id,
  pendingWrites,
})

const NAMESPACES = ['', 'child']

/** Both savers with one thread, and what a run would hold in memory. */
class World {
  readonly oracle = new MemorySaver()
  readonly thread = uuid6(0)
  saver: ThreadbaseSaver
  /** Every checkpoint, with the very objects that were put. */
  all: { id: string; ns: string; values: Values; versions: Record<string, string | number> }[] = []
  readonly #fresh: () => ThreadbaseSaver

  constructor(fresh: () => ThreadbaseSaver) {
    this.#fresh = fresh
    this.saver = fresh()
  }

  async run(one: Step): Promise<void> {
    switch (one.op) {
      case 'put':
        return this.#put(one)
      case 'writes':
        return this.#putWrites(one)
      case 'forget':
        // as another process, which has to read first
        this.saver = this.#fresh()
        return this.#reload()
      case 'prune': {
        await this.saver.prune({ threadIds: [this.thread], keepLatest: one.keep })
        for (const ns of NAMESPACES) {
          const ids = this.all.filter((c) => c.ns === ns).map(({ id }) => id)
          for (const id of ids.sort().slice(0, one.keep === 0 ? undefined : -one.keep)) this.#remove(ns, id)
        }
        return
      }
      case 'delete':
        await this.saver.deleteThread(this.thread)
        await this.oracle.deleteThread(this.thread)
        this.all = []
    }
  }

  #remove(ns: string, id: string): void {
    delete this.oracle.storage[this.thread]?.[ns]?.[id]
    if (Object.keys(this.oracle.storage[this.thread]?.[ns] ?? {}).length === 0)
      delete this.oracle.storage[this.thread]?.[ns]
    delete this.oracle.writes[JSON.stringify([this.thread, ns, id])]
    this.all = this.all.filter((one) => one.id !== id)
  }

  async #put({ parent, changes, ns: n }: Extract<Step, { op: 'put' }>): Promise<void> {
    const ns = n === 0 ? 'child' : ''
    const of = this.all.filter((one) => one.ns === ns)
    const from = of[parent % (of.length + (parent % 5 === 0 ? 1 : 0))]
    const values: Values = { ...from?.values }
    const versions = { ...from?.versions }
    const changed = new Set<string>()
    for (const one of changes) for (const name of apply(values, one)) changed.add(name)
    if (from === undefined) for (const name of Object.keys(values)) changed.add(name)
    const version = this.saver.getNextVersion(undefined)
    for (const name of changed) versions[name] = version
    const id = uuid6(0)
    const checkpoint: Checkpoint = {
      v: 4,
      id,
      ts: new Date().toISOString(),
      channel_values: values,
      channel_versions: versions,
      versions_seen: { n: versions },
    }
    const config: Config = {
      configurable: { thread_id: this.thread, checkpoint_ns: ns, checkpoint_id: from?.id },
    }
    const metadata = {
      source: 'loop' as const,
      step: this.all.length,
      parents: {},
      '\0odd\uffff': ['\0', { a: 1e300 }],
    }
    await this.oracle.put(config, checkpoint, metadata)
    await this.saver.put(
      config,
      checkpoint,
      metadata,
      Object.fromEntries([...changed].map((name) => [name, version])),
    )
    this.all.push({ id, ns, values, versions })
  }

  async #putWrites({ to, task, path, values, channel }: Extract<Step, { op: 'writes' }>): Promise<void> {
    const target = this.all[to % Math.max(1, this.all.length)]
    if (target === undefined) return
    const config: Config = {
      configurable: { thread_id: this.thread, checkpoint_ns: target.ns, checkpoint_id: target.id },
    }
    const writes = values.map((value): [string, unknown] => [channel, value])
    await this.oracle.putWrites(config, writes, `task-${task}`, path)
    await this.saver.putWrites(config, writes, `task-${task}`, path)
  }

  async #reload(): Promise<void> {
    for (const one of this.all) {
      const tuple = await this.saver.getTuple({
        configurable: { thread_id: this.thread, checkpoint_ns: one.ns, checkpoint_id: one.id },
      })
      one.values = tuple?.checkpoint.channel_values ?? {}
    }
  }

  async compare(): Promise<void> {
    for (const ns of NAMESPACES) {
      const config: Config = { configurable: { thread_id: this.thread, checkpoint_ns: ns } }
      const [ours, theirs] = await Promise.all([this.saver.getTuple(config), this.oracle.getTuple(config)])
      expect(ours && plain(ours)).toStrictEqual(theirs && plain(theirs))
      const [allOurs, allTheirs] = await Promise.all([
        collect(this.saver.list(config)),
        collect(this.oracle.list(config)),
      ])
      expect(allOurs.map(plain)).toStrictEqual(allTheirs.map(plain))
    }
  }
}

/** Changes the values as a node would, and says which channels it changed. */
function apply(values: Values, one: typeof change extends fc.Arbitrary<infer T> ? T : never): string[] {
  const list = (values.list ?? []) as unknown[]
  switch (one.do) {
    case 'append':
      values.list = [...list, ...one.items]
      return ['list']
    case 'splice':
      values.list = list.toSpliced(one.at, one.cut, ...one.items)
      return ['list']
    case 'scalar':
      values.a = one.value
      return ['a']
    case 'drop':
      delete values.a
      return ['a']
    case 'edit': {
      // in place, as a careless node does: in every checkpoint that a run still holds it is the same object
      const item = list[one.at % Math.max(1, list.length)]
      if (typeof item !== 'object' || item === null || !('content' in item)) return []
      item.content = one.content
      return ['list']
    }
  }
}

async function collect<T>(items: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = []
  for await (const item of items) all.push(item)
  return all
}

for (const engine of engines) {
  describe.skipIf(!engine.available)(`against MemorySaver on ${engine.name}`, () => {
    let opened: TestDatabase
    beforeAll(async () => {
      opened = await engine.open()
    })
    afterAll(() => opened?.close())

    test('any sequence of puts, writes, forks, prunes and deletes gives the same', {
      timeout: 300_000,
    }, async () => {
      await fc.assert(
        fc.asyncProperty(fc.array(step, { minLength: 1, maxLength: 25, size: 'max' }), async (steps) => {
          const world = new World(() => new ThreadbaseSaver(opened.database, { userId: 'u' }))
          for (const one of steps) await world.run(one)
          await world.compare()
          await world.saver.deleteThread(world.thread)
        }),
        { numRuns: engine.name === 'pglite' ? 25 : 40, endOnFailure: true },
      )
    })
  })
}
