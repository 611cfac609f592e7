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
  /** For the name of a row. */
  how: string
}

type Part = { measure: (bench: Bench) => Promise<Row[]>; alsoWithoutDisk?: boolean }

const parts: Record<string, Part> = {
  // most of what these take is the wait for the disk
  put: { measure: putRows, alsoWithoutDisk: true },
  writes: { measure: putWritesRows, alsoWithoutDisk: true },
  get: { measure: getRows },
  graph: { measure: graphRows },
  growth: { measure: growthRows },
  list: { measure: listAndDeleteRows },
}

/**
 * Our checkpointer against LangGraph's own for PostgreSQL, each with a `pg.Pool` of the same settings on one server,
 * in turn. Parts: put, writes, get, graph, growth, list (with deleteThread).
 */
export async function benchCheckpoints({ only, rounds = 5 }: BenchOptions): Promise<void> {
  const unknown = only?.filter((name) => !Object.hasOwn(parts, name)) ?? []
  if (unknown.length > 0) throw new Error(`no part ${unknown.join()}; there are ${Object.keys(parts).join()}`)
  const postgres = startPostgres()
  try {
    await using tb = await openThreadbase({ databaseUrl: postgres.url, env: {}, embeddings: false })
    const facts = await machineFacts(tb.database)
    const rows: Row[] = []
    for (const [name, { measure, alsoWithoutDisk }] of Object.entries(parts)) {
      if (only !== undefined && !only.includes(name)) continue
      rows.push(...(await withBench(postgres.url, rounds, true, measure)))
      if (alsoWithoutDisk) rows.push(...(await withBench(postgres.url, rounds, false, measure)))
    }
    report('checkpoints', { ...facts, rounds, ratio: 'how many times better than the peer' }, rows)
  } finally {
    postgres.stop()
  }
}

async function withBench(url: string, rounds: number, wait: boolean, measure: Part['measure']) {
  const pools = { peer: openPool(url, wait), ours: openPool(url, wait), raw: openPool(url, wait) }
  try {
    return await measure({
      open: (name) => openSavers(pools, name),
      raw: await openRaw(pools.raw),
      rounds,
      how: wait ? '' : ', not waiting for the disk',
    })
  } finally {
    await Promise.all(Object.values(pools).map((pool) => pool.end()))
  }
}
