import { randomUUID } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { createInterface } from 'node:readline'
import {
  brotliCompressSync,
  brotliDecompressSync,
  constants,
  createGunzip,
  zstdCompressSync,
  zstdDecompressSync,
} from 'node:zlib'
import pg from 'pg'
import { openThreadbase } from '../src/index.ts'
import { machineFacts, median, ms, type Row, report } from './harness.ts'
import { dialogues } from './import.ts'
import { startPostgres } from './postgres.ts'

type Way = {
  name: string
  /** Of the column, for what is left to the database. */
  storage: 'external' | 'extended'
  by?: 'lz4' | 'pglz'
  pack(data: Buffer): Buffer
  unpack(data: Buffer): Buffer
}

const same = (data: Buffer) => data
const zstd = (level: number): Way => ({
  name: `zstd ${level}, node`,
  storage: 'external',
  pack: (data) => zstdCompressSync(data, { params: { [constants.ZSTD_c_compressionLevel]: level } }),
  unpack: (data) => zstdDecompressSync(data),
})
const brotli = (quality: number): Way => ({
  name: `brotli ${quality}, node`,
  storage: 'external',
  pack: (data) => brotliCompressSync(data, { params: { [constants.BROTLI_PARAM_QUALITY]: quality } }),
  unpack: (data) => brotliDecompressSync(data),
})

const WAYS: Way[] = [
  { name: 'none', storage: 'external', pack: same, unpack: same },
  { name: 'pglz, column', storage: 'extended', by: 'pglz', pack: same, unpack: same },
  { name: 'lz4, column', storage: 'extended', by: 'lz4', pack: same, unpack: same },
  zstd(1),
  zstd(3),
  brotli(1),
  brotli(4),
]

const SIZES = [1_000, 4_000, 20_000, 100_000, 1_000_000]
const ROUNDS = 5

/** What each way to compress a value costs to write and to read, and what it leaves, by size of the value. */
export async function benchCompression(): Promise<void> {
  const postgres = startPostgres()
  const client = new pg.Client({ connectionString: postgres.url })
  try {
    const tb = await openThreadbase({ databaseUrl: postgres.url, env: {}, embeddings: false })
    const facts = await machineFacts(tb.database)
    await tb.close()
    await client.connect()
    const text = await readDialogues()
    const rows: Row[] = []
    for (const size of SIZES) rows.push(...(await compare(client, text, size)))
    report('compression', facts, rows)
  } finally {
    await client.end()
    postgres.stop()
  }
}

async function compare(client: pg.Client, text: Buffer, size: number): Promise<Row[]> {
  const count = Math.max(5, Math.min(100, Math.floor(2_000_000 / size)))
  const step = Math.floor((text.length - size) / count)
  const values = Array.from({ length: count }, (_, i) => text.subarray(i * step, i * step + size))
  const measured = WAYS.map(() => ({ write: [] as number[], read: [] as number[], bytes: 0 }))
  for (let round = 0; round < ROUNDS; round++) {
    for (const [i, way] of WAYS.entries()) {
      const { write, read, bytes } = await store(client, way, values)
      measured[i]?.write.push(write / count)
      measured[i]?.read.push(read / count)
      Object.assign(measured[i] as object, { bytes })
    }
  }
  return WAYS.map(({ name }, i) => {
    const { write, read, bytes } = measured[i] as (typeof measured)[number]
    return {
      work: `${size.toLocaleString('en')} B, ${name}`,
      figure: `write ${ms(median(write))}, read ${ms(median(read))}`,
      limit: `${((100 * bytes) / (count * size)).toFixed(0)} % of the bytes in the database`,
    }
  })
}

/** Milliseconds for all of the values, and the bytes that the database keeps of them. */
async function store(client: pg.Client, way: Way, values: Buffer[]) {
  const table = `bench_${randomUUID().replaceAll('-', '')}`
  const { storage, by } = way
  await client.query(`create table ${table} (id int primary key, data bytea not null)`)
  await client.query(`alter table ${table} alter column data set storage ${storage}`)
  if (by !== undefined) await client.query(`alter table ${table} alter column data set compression ${by}`)
  const started = performance.now()
  for (const [id, value] of values.entries()) {
    await client.query({
      name: `${table} put`,
      text: `insert into ${table} values ($1, $2)`,
      values: [id, way.pack(value)],
    })
  }
  const written = performance.now()
  for (const [id, value] of values.entries()) {
    const query = { name: `${table} get`, text: `select data from ${table} where id = $1`, values: [id] }
    const { rows } = await client.query<{ data: Buffer }>(query)
    const [row] = rows
    if (row === undefined || !way.unpack(row.data).equals(value)) throw new Error(`${way.name} lost a value`)
  }
  const read = performance.now()
  const { rows } = await client.query<{ bytes: string }>(
    `select sum(pg_column_size(data)) as bytes from ${table}`,
  )
  await client.query(`drop table ${table}`)
  return { write: written - started, read: read - written, bytes: Number(rows[0]?.bytes) }
}

/** Real conversations, as their JSON stands one after the other. */
async function readDialogues(): Promise<Buffer> {
  const lines: string[] = []
  let length = 0
  for await (const line of createInterface({ input: createReadStream(dialogues()).pipe(createGunzip()) })) {
    lines.push(line)
    length += line.length
    if (length > 8_000_000) break
  }
  return Buffer.from(`[${lines.join()}]`)
}
