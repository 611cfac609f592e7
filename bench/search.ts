import pg from 'pg'
import { openThreadbase } from '../src/index.ts'
import type { Threadbase } from '../src/threadbase.ts'
import { gdprRows } from './gdpr.ts'
import { type BenchOptions, machineFacts, type Row, report } from './harness.ts'
import { startPostgres } from './postgres.ts'
import { appendRows, drainRows } from './search-append.ts'
import { embedRates } from './search-embed.ts'
import { qualityRows } from './search-quality.ts'
import { textRows } from './search-text.ts'
import { vectorRows } from './search-vectors.ts'

/** What a part measures on: a database of its own. */
export type SearchBench = {
  url: string
  tb: Threadbase
  /** Of a part that can do with more. */
  rows: number | undefined
  rounds: number | undefined
}

const parts: Record<string, (bench: SearchBench) => Promise<Row[]>> = {
  quality: qualityRows,
  vectors: vectorRows,
  text: textRows,
  append: ({ url, rounds }) => appendRows(url, rounds),
  drain: ({ url, rounds }) => drainRows(url, rounds),
  embed: ({ rounds }) => embedRates(rounds),
  gdpr: ({ tb }) => gdprRows(tb),
}

/** Search: what it finds and how fast. Parts: quality, vectors (`--rows` for more than 300,000), text, append, drain, embed, gdpr. */
export async function benchSearch({ only, rounds, rows: size }: BenchOptions): Promise<void> {
  const unknown = only?.filter((name) => !Object.hasOwn(parts, name)) ?? []
  if (unknown.length > 0) throw new Error(`no part ${unknown.join()}; there are ${Object.keys(parts).join()}`)
  const postgres = startPostgres()
  try {
    const rows: Row[] = []
    const facts: Record<string, string | number> = {}
    for (const [name, measure] of Object.entries(parts)) {
      if (only !== undefined && !only.includes(name)) continue
      const databaseSchema = `search_bench_${name}`
      await dropSchema(postgres.url, databaseSchema)
      await using tb = await openThreadbase({
        ...{ databaseUrl: postgres.url, databaseSchema, env: {} },
        // each part brings its own vectors
        embeddings: false,
      })
      Object.assign(facts, await machineFacts(tb.database))
      rows.push(...(await measure({ url: postgres.url, tb, rows: size, rounds })))
      await dropSchema(postgres.url, databaseSchema)
    }
    report('search', facts, rows)
  } finally {
    postgres.stop()
  }
}

/** Of a run before, or of this one. */
async function dropSchema(url: string, schema: string): Promise<void> {
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  await client.query(`set client_min_messages = warning; drop schema if exists ${schema} cascade`)
  await client.end()
}
