import { PostgresStore } from '@langchain/langgraph-checkpoint-postgres/store'
import { sql } from 'kysely'
import pg from 'pg'
import { newId } from '../src/core/ids.ts'
import { silentLog } from '../src/core/log.ts'
import { realArray, textArray, uuidArray } from '../src/db/arrays.ts'
import { DIMENSIONS, type Embedder } from '../src/embeddings/embedder.ts'
import { createSearchService } from '../src/search/service.ts'
import { createVectors, prepareVectors } from '../src/search/vectors/service.ts'
import type { Threadbase } from '../src/threadbase.ts'
import { ms, type Row, timed } from './harness.ts'
import type { SearchBench } from './search.ts'

const TENANTS = 300
const ROWS = 300_000
const PEER_ROWS = 100_000
const CENTERS = 2_000
const QUERIES = 100
const TOP = 10
const MODEL = 'synthetic'
const BATCH = 500

type Item = { id: string; vector: Float32Array }
/** The largest has a sixth of all rows. */
type Tenant = { userId: string; rows: number; items: Item[] }

/** Search by meaning among vectors of many tenants, for the largest, one in the middle and the smallest. */
export async function vectorRows({ tb, url, rows: size = ROWS }: SearchBench): Promise<Row[]> {
  const { random, gaussian } = createRandom(20)
  const centers = Array.from({ length: CENTERS }, () => unit(() => gaussian()))
  /** Texts of one topic are near each other, but far from equal. */
  const near = (center: Float32Array, spread: number) =>
    unit((i) => (center[i] as number) + (spread * gaussian()) / Math.sqrt(DIMENSIONS))
  const tenants = divide(size)
  const stored = await timed(() =>
    fill(tb, tenants, () => near(centers[Math.floor(random() * CENTERS)] as Float32Array, 1)),
  )
  process.stderr.write(`  ${size} rows stored in ${Math.round(stored.ms / 1_000)} s\n`)
  const built = await timed(() => buildIndex(tb, url))
  const asked = new Map<string, Float32Array>()
  const [largest, smallest] = [tenants[0], tenants.at(-1)] as [Tenant, Tenant]
  const middle = tenants.find(({ rows }) => rows < 8_000) as Tenant
  for (const tenant of [largest, middle, smallest]) {
    for (let n = 0; n < QUERIES; n++) {
      const item = tenant.items[Math.floor(random() * tenant.items.length)] as Item
      asked.set(`${tenant.userId} ${n}`, near(item.vector, 0.5))
    }
  }
  const ours = await ourSearch(tb, asked)
  const result: Row[] = [
    {
      work: `index of ${size.toLocaleString('en')} vectors`,
      figure: `${Math.round(built.ms / 1_000)} s to build`,
    },
  ]
  for (const [what, tenant] of Object.entries({ largest, middle, smallest }))
    result.push(
      ...(await tenantRows(`${what} tenant (${tenant.rows.toLocaleString('en')})`, tenant, asked, ours)),
    )
  result.push(...(await peerRows(url, tenants, asked, ours)))
  return result
}

type Ask = (userId: string, q: string) => Promise<string[]>

async function ourSearch({ database }: Threadbase, asked: Map<string, Float32Array>): Promise<Ask> {
  const embedder: Embedder = {
    ...{ model: MODEL, description: MODEL, batchSize: 1 },
    embed: async (texts) => texts.map((text) => asked.get(text) as Float32Array),
    close: async () => {},
  }
  const vectors = createVectors(database, { probes: undefined })
  const search = createSearchService(database, { embedder, vectors, trigrams: async () => undefined })
  return async (userId, q) => {
    const { items } = await search.messages({ userId }, { q, mode: 'semantic', limit: TOP })
    return items.map(({ message }) => message?.id ?? '')
  }
}

async function tenantRows(
  name: string,
  { userId, items }: Tenant,
  asked: Map<string, Float32Array>,
  ask: Ask,
): Promise<Row[]> {
  const times: number[] = []
  let right = 0
  const queries = [...asked].filter(([q]) => q.startsWith(`${userId} `))
  for (const [q, vector] of queries) {
    const { ms: took, result } = await timed(() => ask(userId, q))
    times.push(took)
    const exact = new Set(nearest(items, vector))
    right += result.filter((id) => exact.has(id)).length / TOP
  }
  const recall = right / queries.length
  return [
    {
      work: `recall@${TOP}, ${name}`,
      figure: recall.toFixed(3),
      target: '≥ 0.95',
      met: recall >= 0.95,
    },
    {
      work: `p95, ${name}`,
      figure: ms(percentile(times, 0.95)),
      limit: `median ${ms(percentile(times, 0.5))}`,
    },
  ]
}

const dot = (a: Float32Array, b: Float32Array) => {
  let sum = 0
  for (let i = 0; i < a.length; i++) sum += (a[i] as number) * (b[i] as number)
  return sum
}

function nearest(items: Item[], vector: Float32Array): string[] {
  return items
    .map(({ id, vector: other }) => [dot(vector, other), id] as const)
    .sort(([a], [b]) => b - a)
    .slice(0, TOP)
    .map(([, id]) => id)
}

export function percentile(values: number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b)
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? Number.NaN
}

/** Sizes that fall as 1/n. */
function divide(size: number): Tenant[] {
  const shares = Array.from({ length: TENANTS }, (_, n) => 1 / (n + 1))
  const sum = shares.reduce((a, b) => a + b)
  return shares.map((share, n) => ({
    userId: `tenant-${String(n).padStart(3, '0')}`,
    rows: Math.max(20, Math.round((size * share) / sum)),
    items: [],
  }))
}

/** Stores the rows of all tenants mixed, as they would come. */
async function fill(
  { database, threads }: Threadbase,
  tenants: Tenant[],
  next: () => Float32Array,
): Promise<void> {
  const { db, schema } = database
  const threadOf = new Map<string, string>()
  for (const { userId } of tenants) threadOf.set(userId, (await threads.create({ userId })).id)
  await prepareVectors(database, { index: 'hnsw', change: true }, silentLog)
  await sql`drop index if exists ${sql.id(schema, 'messages_by_embedding')}`.execute(db)
  const { random } = createRandom(7)
  const order = tenants
    .flatMap((tenant) => Array.from({ length: tenant.rows }, () => [random(), tenant] as const))
    .sort(([a], [b]) => a - b)
    .map(([, tenant]) => tenant)
  for (let at = 0; at < order.length; at += BATCH) {
    const batch = order.slice(at, at + BATCH)
    const made = batch.map((tenant) => {
      const item = { id: newId(), vector: next() }
      tenant.items.push(item)
      return item
    })
    const numbers = new Float32Array(DIMENSIONS * batch.length)
    for (const [i, { vector }] of made.entries()) numbers.set(vector, i * DIMENSIONS)
    await sql`
      insert into ${sql.id(schema, 'messages')}
        (user_id, thread_id, seq, id, role, content, digest, words, embedding_model, embedding)
      select i.user_id, i.thread_id, ${at}::bigint + i.n, i.id, 'user', '"x"', '', '', ${MODEL},
             (a.numbers)[(i.n - 1) * ${DIMENSIONS}::int + 1 : i.n * ${DIMENSIONS}::int]::vector
        from (select ${realArray(numbers)}::real[] as numbers offset 0) a,
             unnest(${textArray(batch.map(({ userId }) => userId))}::text[],
                    ${uuidArray(batch.map(({ userId }) => threadOf.get(userId) as string))}::uuid[],
                    ${uuidArray(made.map(({ id }) => id))}::uuid[]) with ordinality as i (user_id, thread_id, id, n)`.execute(
      db,
    )
  }
  await sql`analyze ${sql.id(schema, 'messages')}`.execute(db)
}

/** On a connection of its own, with memory for the whole graph. */
async function buildIndex({ database: { schema } }: Threadbase, url: string): Promise<void> {
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  await client.query("set maintenance_work_mem = '1GB'")
  await client.query(
    `create index messages_by_embedding on ${schema}.messages using hnsw (embedding vector_cosine_ops)`,
  )
  await client.end()
}

/** LangGraph's store on the rows of the largest tenants, in a namespace each. */
async function peerRows(
  url: string,
  tenants: Tenant[],
  asked: Map<string, Float32Array>,
  ours: Ask,
): Promise<Row[]> {
  const schema = 'search_bench_peer'
  const store = new PostgresStore({
    connectionOptions: { connectionString: url },
    ...{ schema, ensureTables: true },
    index: {
      dims: DIMENSIONS,
      embed: async (texts: string[]) => texts.map((text) => [...(asked.get(text) as Float32Array)]),
      // as that of the package, built once the rows are there
    },
  } as unknown as ConstructorParameters<typeof PostgresStore>[0])
  await store.setup()
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  try {
    const filled = await timed(() => fillPeer(client, schema, tenants))
    process.stderr.write(`  the peer's rows stored in ${Math.round(filled.ms / 1_000)} s\n`)
    const [{ userId }] = tenants as [Tenant]
    const queries = [...asked.keys()].filter((q) => q.startsWith(`${userId} `)).slice(0, 20)
    const times: Record<'peer' | 'ours', number[]> = { peer: [], ours: [] }
    for (const q of queries) {
      times.peer.push((await timed(() => store.search([userId], { query: q, limit: TOP }))).ms)
      times.ours.push((await timed(() => ours(userId, q))).ms)
    }
    const [peer, mine] = [percentile(times.peer, 0.5), percentile(times.ours, 0.5)]
    return [
      {
        work: `semantic search, the largest tenant (the peer has ${PEER_ROWS.toLocaleString('en')} rows), median`,
        figure: ms(mine),
        limit: `PostgresStore ${ms(peer)}`,
        ratio: peer / mine,
        target: '≥ 10',
        met: peer / mine >= 10,
      },
    ]
  } finally {
    await store.stop()
    await client.query(`drop schema if exists ${schema} cascade`)
    await client.end()
  }
}

/** Into its tables, as `put` would, without an index to keep up: it has none that its search uses. */
async function fillPeer(client: pg.Client, schema: string, tenants: Tenant[]): Promise<void> {
  const { rows } = await client.query(
    `select indexname from pg_indexes where schemaname = $1 and indexdef ~ 'hnsw|gin'`,
    [schema],
  )
  for (const { indexname } of rows) await client.query(`drop index ${schema}.${indexname}`)
  const wanted = tenants
    .flatMap(({ userId, items }) => items.map((item) => ({ userId, ...item })))
    .slice(0, PEER_ROWS)
  for (let at = 0; at < wanted.length; at += BATCH) {
    const batch = wanted.slice(at, at + BATCH)
    const values = [batch.map(({ userId }) => userId), batch.map(({ id }) => id)]
    await client.query(
      `insert into ${schema}.store (namespace_path, key, value) select *, '{"text": "x"}'::jsonb from unnest($1::text[], $2::text[])`,
      values,
    )
    await client.query(
      `insert into ${schema}.store_vectors (namespace_path, key, field_path, text_content, embedding)
       select n, k, '$', 'x', v::vector from unnest($1::text[], $2::text[], $3::text[]) as i (n, k, v)`,
      [...values, batch.map(({ vector }) => `[${vector.join()}]`)],
    )
  }
  await client.query(`analyze ${schema}.store; analyze ${schema}.store_vectors`)
}

function unit(at: (i: number) => number): Float32Array {
  const vector = Float32Array.from({ length: DIMENSIONS }, (_, i) => at(i))
  const length = Math.hypot(...vector)
  return vector.map((number) => number / length)
}

/** The same numbers in each run (mulberry32). */
export function createRandom(seed: number) {
  let state = seed
  const random = () => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296
  }
  const gaussian = () => Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random())
  return { random, gaussian }
}
