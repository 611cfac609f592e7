import { createHash } from 'node:crypto'
import { mkdir, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { sql } from 'kysely'
import { keyOf } from '../src/blobs/blobs.ts'
import { t } from '../src/db/schema.ts'
import type { Threadbase } from '../src/threadbase.ts'
import { residentMb } from './artifact-gigabyte.ts'
import { ms, type Row, timed } from './harness.ts'

const scope = { userId: 'garbage' }
const SIZES = (process.env.THREADBASE_BENCH_ROWS ?? '100000,1000000').split(',').map(Number)
const BATCH = 50_000

/** A tenth of the rows are orphans, with their files; the others have a name. */
export async function collectRows(tb: Threadbase, dir: string): Promise<Row[]> {
  const rows: Row[] = []
  const times: number[] = []
  for (const size of SIZES) {
    process.stderr.write(`  making ${size.toLocaleString('en')} rows\n`)
    await fill(tb, dir, size)
    const idle = residentMb(process.pid, 'VmRSS')
    let peak = idle
    const timer = setInterval(() => {
      peak = Math.max(peak, residentMb(process.pid, 'VmRSS'))
    }, 20)
    const { ms: took, result } = await timed(() => tb.upkeep.collect({ graceS: 3_600 }))
    clearInterval(timer)
    if (result.removed !== size / 10) throw new Error(`${result.removed} of ${size / 10} were removed`)
    times.push(took)
    process.stderr.write(`  ${result.removed.toLocaleString('en')} collected in ${ms(took)}\n`)
    rows.push({
      work: `collect ${(size / 10).toLocaleString('en')} orphans among ${size.toLocaleString('en')} rows`,
      figure: `${ms(took)}, ${(peak - idle).toFixed(0)} MB above idle`,
    })
    await sql`truncate ${t.artifacts}, ${t.files}, ${t.blobs}`.execute(tb.database.db)
  }
  const [small = 1, large = 1] = times
  rows.push({
    work: 'ten times the rows: times the time',
    figure: (large / small).toFixed(1),
    target: 'linear',
  })
  return rows
}

async function threadOf(tb: Threadbase): Promise<string> {
  const id = '00000000-0000-7000-8000-0000000000aa'
  return (await tb.threads.createOrFind(scope, { id })).thread.id
}

async function fill(tb: Threadbase, dir: string, size: number): Promise<void> {
  const { db } = tb.database
  const thread = await threadOf(tb)
  for (let from = 1; from <= size; from += BATCH) {
    const numbers = sql`generate_series(${from}::int, ${Math.min(from + BATCH - 1, size)}::int) i`
    const hash = sql`encode(sha256(i::text::bytea), 'hex')`
    await sql`
      insert into ${t.blobs} (sha256, size, touched_at)
      select ${hash}, 8, now() - interval '2 hours' from ${numbers}`.execute(db)
    await sql`
      insert into ${t.artifacts} (user_id, id, thread_id, sha256, filename, mime, size)
      select ${scope.userId}, gen_random_uuid(), ${thread}::uuid, ${hash}, 'x', 'text/plain', 8
        from ${numbers} where i % 10 <> 0`.execute(db)
  }
  await sql`analyze ${t.blobs}`.execute(db)
  await sql`analyze ${t.artifacts}`.execute(db)
  const made = new Set<string>()
  for (let i = 10; i <= size; i += 10) {
    const path = join(dir, keyOf(createHash('sha256').update(String(i)).digest('hex')))
    if (!made.has(dirname(path))) await mkdir(dirname(path), { recursive: true })
    made.add(dirname(path))
    await writeFile(path, '12345678')
  }
}
