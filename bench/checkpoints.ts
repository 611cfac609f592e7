import { openThreadbase } from '../src/index.ts'
import { graphRows } from './checkpoint-graph.ts'
import { getRows, listAndDeleteRows } from './checkpoint-reads.ts'
import { openPool, openRaw, openSavers } from './checkpoint-savers.ts'
import { growthRows, putRows, putWritesRows } from './checkpoint-writes.ts'
import { type BenchOptions, machineFacts, type Row, report } from './harness.ts'
import { startPostgres } from './postgres.ts'

/** What a part measures with. */
export type Bench = {
  open(name: string): ReturnType<typeof openSavers>
  raw: Awaited<ReturnType<typeof openRaw>>
  rounds: number
}

const parts: Record<string, (bench: Bench) => Promise<Row[]>> = {
  put: putRows,
  writes: putWritesRows,
  get: getRows,
  graph: graphRows,
  growth: growthRows,
  list: listAndDeleteRows,
}

/**
 * Our checkpointer against LangGraph's own for PostgreSQL, each with a `pg.Pool` of the same settings on one server,
 * in turn. Parts: put, writes, get, graph, growth, list (with deleteThread).
 */
export async function benchCheckpoints({ only, rounds = 5 }: BenchOptions): Promise<void> {
  const unknown = only?.filter((name) => !Object.hasOwn(parts, name)) ?? []
  if (unknown.length > 0) throw new Error(`no part ${unknown.join()}; there are ${Object.keys(parts).join()}`)
  const postgres = startPostgres()
  const pools = { peer: openPool(postgres.url), ours: openPool(postgres.url) }
  const rawPool = openPool(postgres.url)
  try {
    await using tb = await openThreadbase({ databaseUrl: postgres.url, env: {} })
    const facts = await machineFacts(tb.database)
    const bench = { open: (name: string) => openSavers(pools, name), raw: await openRaw(rawPool), rounds }
    const rows: Row[] = []
    for (const [name, measure] of Object.entries(parts)) {
      if (only === undefined || only.includes(name)) rows.push(...(await measure(bench)))
    }
    report('checkpoints', { ...facts, rounds, ratio: 'how many times better than the peer' }, rows)
  } finally {
    await Promise.all([rawPool, pools.peer, pools.ours].map((pool) => pool.end()))
    postgres.stop()
  }
}
