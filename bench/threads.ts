import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { openThreadbase } from '../src/index.ts'
import type { Threadbase } from '../src/threadbase.ts'
import { alternate, machineFacts, median, ms, perSecond, type Row, report, root, timed } from './harness.ts'
import { postLoad } from './http-load.ts'
import { importRows } from './import.ts'
import { pgbench, startPostgres } from './postgres.ts'
import { startServer } from './server.ts'

const WRITERS = 16
const SECONDS = 4
const ROUNDS = 3
const TEXT = 'The quick brown fox jumps over the lazy dog. '.repeat(5).trim()
const scope = { userId: 'local' }

/** Appending, reading, forking, deleting, importing and starting, each against its limit in the same run. */
export async function benchThreads(): Promise<void> {
  const postgres = startPostgres()
  try {
    const rows: Row[] = []
    const tb = await openThreadbase({ databaseUrl: postgres.url, env: {}, embeddings: false })
    try {
      const facts = await machineFacts(tb.database)
      rows.push(...(await appendRows(tb, postgres.url)))
      rows.push(...(await readRows(tb)))
      rows.push(...(await copyAndDeleteRows(tb)))
      rows.push(...(await importRows(postgres.url)))
      rows.push(...(await startRows()))
      report('threads', facts, rows)
    } finally {
      await tb.close()
    }
  } finally {
    postgres.stop()
  }
}

// pgbench clients are numbered from 0; each has a thread of its own, as each of our writers has
const threadOf = (writer: number) => `00000000-0000-7000-8000-${String(writer).padStart(12, '0')}`

const PGBENCH_APPEND = `select status, id, seq, parent_seq, parent_id, meta, created_at from threadbase.append_messages(
  array[0], array['local'], array[('00000000-0000-7000-8000-' || lpad(:client_id::text, 12, '0'))::uuid],
  array[gen_random_uuid()], array[gen_random_uuid()::text], array['auto'], array[null]::int[], array[null]::uuid[],
  array[null]::text[], array['user'], array['"${TEXT}"'], array[null]::text[], array[null]::text[],
  array[null]::text[], array[null]::text[], array[null]::text[], array['00112233445566778899aabbccddeeff'],
  array[null]::timestamptz[], array[null]::timestamptz[]);`

async function appendRows(tb: Threadbase, url: string): Promise<Row[]> {
  for (let writer = 0; writer < WRITERS; writer++) await tb.threads.create(scope, { id: threadOf(writer) })
  const server = await startServer(join(root, 'src/cli/main.ts'), { DATABASE_URL: url })
  let sent = 0
  const rates = await alternate(ROUNDS, {
    pgbench: async () => pgbench(url, PGBENCH_APPEND, { clients: WRITERS, seconds: SECONDS }),
    library: () => appendLoad(tb, (count) => count),
    // every fifth append of a writer repeats the one before it
    duplicates: () => appendLoad(tb, (count) => (count % 5 === 4 ? count - 1 : count)),
    http: () =>
      postLoad(server.url, {
        connections: WRITERS,
        seconds: SECONDS,
        next: (i) => ({
          path: `/api/threads/${threadOf(i)}/messages`,
          body: JSON.stringify({ message_id: `h${sent++}`, role: 'user', content: TEXT }),
        }),
      }),
  })
  await server.stop()
  const share = (rate: number) => rate / rates.pgbench
  const limit = `pgbench ${perSecond(rates.pgbench)}`
  return [
    {
      work: 'append, 16 writers, library',
      figure: perSecond(rates.library),
      limit,
      ratio: share(rates.library),
      target: '≥ 0.60',
      met: share(rates.library) >= 0.6,
    },
    {
      work: 'append, 16 writers, HTTP',
      figure: perSecond(rates.http),
      limit,
      ratio: share(rates.http),
      target: '≥ 0.35',
      met: share(rates.http) >= 0.35,
    },
    {
      work: 'append with 20 % duplicates',
      figure: perSecond(rates.duplicates),
      limit: `without ${perSecond(rates.library)}`,
      ratio: rates.duplicates / rates.library,
      target: '≥ 1.00',
      met: rates.duplicates >= rates.library,
    },
  ]
}

let loads = 0

/** Calls per second of 16 writers that each wait for their answer. `idOf` numbers the messages of one writer. */
async function appendLoad(tb: Threadbase, idOf: (count: number) => number): Promise<number> {
  const load = ++loads
  const started = performance.now()
  const until = started + SECONDS * 1_000
  const writer = async (i: number) => {
    let count = 0
    for (; performance.now() < until; count++) {
      const messageId = `${load}-${i}-${idOf(count)}`
      await tb.messages.append(scope, threadOf(i), [{ messageId, role: 'user', content: TEXT }])
    }
    return count
  }
  const counts = await Promise.all(Array.from({ length: WRITERS }, (_, i) => writer(i)))
  return counts.reduce((sum, count) => sum + count, 0) / ((performance.now() - started) / 1_000)
}

async function makeThread(tb: Threadbase, messages: number): Promise<string> {
  const { id } = await tb.threads.create(scope)
  for (let from = 0; from < messages; from += 1_000) {
    const count = Math.min(1_000, messages - from)
    await tb.messages.append(
      scope,
      id,
      Array.from({ length: count }, (_, i) => ({
        messageId: `m${from + i}`,
        role: 'user' as const,
        content: TEXT,
      })),
    )
  }
  return id
}

async function readRows(tb: Threadbase): Promise<Row[]> {
  const small = await makeThread(tb, 100)
  const large = await makeThread(tb, 100_000)
  const read = async (id: string) => {
    const times: number[] = []
    for (let i = 0; i < 300; i++) {
      times.push((await timed(() => tb.messages.list(scope, id, { limit: 50, order: 'desc' }))).ms)
    }
    return median(times)
  }
  const p50 = await alternate(5, { small: () => read(small), large: () => read(large) })
  const deletion = await timed(() => tb.threads.delete(scope, large))
  return [
    {
      work: 'last 50 of 100,000 messages, p50',
      figure: ms(p50.large),
      limit: `of 100: ${ms(p50.small)}`,
      ratio: p50.large / p50.small,
      target: '≤ 2.00',
      met: p50.large <= 2 * p50.small,
    },
    {
      work: 'delete a thread of 100,000',
      figure: ms(deletion.ms),
      target: '< 2,000 ms',
      met: deletion.ms < 2_000,
    },
  ]
}

async function copyAndDeleteRows(tb: Threadbase): Promise<Row[]> {
  const id = await makeThread(tb, 12_000)
  const times: number[] = []
  for (let i = 0; i < 5; i++) times.push((await timed(() => tb.threads.fork(scope, id, { at: 10_000 }))).ms)
  const fork = median(times)
  return [{ work: 'fork at message 10,000', figure: ms(fork), target: '< 300 ms', met: fork < 300 }]
}

async function startRows(): Promise<Row[]> {
  const built = join(root, 'dist/cli/main.js')
  if (!existsSync(built))
    throw new Error('run `npm run build` first: the start is measured on the built package')
  const parent = mkdtempSync(join(tmpdir(), 'threadbase-start-'))
  const fresh: number[] = []
  const existing: number[] = []
  for (let i = 0; i < 5; i++) {
    for (const times of [fresh, existing]) {
      const server = await startServer(built, { DATA_DIR: join(parent, `d${i}`) })
      times.push(server.readyMs)
      await server.stop()
    }
  }
  rmSync(parent, { recursive: true, force: true })
  return [
    {
      work: 'start to first answer, fresh embedded',
      figure: ms(median(fresh)),
      target: '< 4,000 ms',
      met: median(fresh) < 4_000,
    },
    { work: 'start to first answer, existing embedded', figure: ms(median(existing)) },
  ]
}
