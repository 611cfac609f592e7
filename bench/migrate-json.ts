import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { sql } from 'kysely'
import { openThreadbase } from '../src/index.ts'
import type { Threadbase } from '../src/threadbase.ts'
import { makeCouncilFolder } from '../test/council-folders.ts'
import { alternate, median, perSecond, type Row, root, timed } from './harness.ts'

const CONVERSATIONS = Number(process.env.THREADBASE_BENCH_CONVERSATIONS ?? 10_000)
const MESSAGES = 20
const SCHEMA = 'bench_move'
const TARGET = 20_000
const MAX_MEMORY_MB = 400

type Moved = {
  seconds: number
  messages: number
  bytes: number
  conversations: { moved: number }
  memory: number
}

/**
 * Moving 10,000 conversations of 20 messages from files into PostgreSQL, in a process of its own, next to COPY of the very
 * same rows by psql: into a bare copy of the table, and into one with its indexes.
 */
export async function migrateJsonRows(url: string, rounds = 3): Promise<Row[]> {
  const parent = mkdtempSync(join(tmpdir(), 'threadbase-move-'))
  await using tb = await openThreadbase({
    databaseUrl: url,
    databaseSchema: SCHEMA,
    env: {},
    embeddings: false,
  })
  try {
    const folder = join(parent, 'data')
    await makeCouncilFolder(folder, { conversations: CONVERSATIONS, messages: MESSAGES })
    const memory: number[] = []
    let bytes = 0
    const move = async () => {
      await empty(tb)
      const moved = runMove(url, folder)
      memory.push(moved.memory)
      bytes = moved.bytes
      return moved.messages / moved.seconds
    }
    const file = join(parent, 'rows')
    const copyInto = (like: string) => async () => {
      psql(url, `\\copy (select * from ${SCHEMA}.messages) to '${file}' (format binary)`)
      await makeTable(tb, like)
      const { ms } = await timed(async () =>
        psql(url, `\\copy ${SCHEMA}.bare from '${file}' (format binary)`),
      )
      return (1_000 * CONVERSATIONS * MESSAGES) / ms
    }
    const rates = await alternate(rounds, {
      move,
      copy: copyInto('including defaults'),
      copyWithIndexes: copyInto('including all'),
    })
    const size = `${Math.round(bytes / CONVERSATIONS / MESSAGES)} bytes each, rows of ${Math.round(statSync(file).size / CONVERSATIONS / MESSAGES)}`
    const megabytes = median(memory) / 1e6
    return [
      {
        work: `migrate-json, ${CONVERSATIONS} × ${MESSAGES} messages (${size})`,
        figure: perSecond(rates.move),
        limit: `COPY, no indexes ${perSecond(rates.copy)}`,
        ratio: rates.move / rates.copy,
        target: `≥ ${TARGET}/s`,
        met: rates.move >= TARGET,
        raw: `COPY, indexes ${perSecond(rates.copyWithIndexes)}`,
        rawRatio: rates.move / rates.copyWithIndexes,
      },
      {
        work: 'migrate-json, peak memory above idle',
        figure: `${Math.round(megabytes)} MB`,
        target: `≤ ${MAX_MEMORY_MB} MB`,
        met: megabytes <= MAX_MEMORY_MB,
      },
    ]
  } finally {
    await sql`drop schema if exists ${sql.id(SCHEMA)} cascade`.execute(tb.database.db)
    rmSync(parent, { recursive: true, force: true })
  }
}

function runMove(url: string, folder: string): Moved {
  const script = join(root, 'bench/migrate-json-child.ts')
  const out = execFileSync(process.execPath, ['--no-warnings', script, url, SCHEMA, folder], {
    encoding: 'utf8',
  })
  const moved = JSON.parse(out.trim().split('\n').at(-1) ?? '') as Moved
  if (moved.conversations.moved !== CONVERSATIONS) throw new Error(`not all were moved: ${out}`)
  return moved
}

async function empty(tb: Threadbase): Promise<void> {
  const { db } = tb.database
  await sql`drop table if exists ${sql.id(SCHEMA, 'bare')}`.execute(db)
  await sql`truncate ${sql.id(SCHEMA, 'threads')}, ${sql.id(SCHEMA, 'usage')} cascade`.execute(db)
  // what the round before wrote is not paid for by this one
  await sql`checkpoint`.execute(db)
}

async function makeTable({ database: { db } }: Threadbase, like: string): Promise<void> {
  await sql`drop table if exists ${sql.id(SCHEMA, 'bare')}`.execute(db)
  await sql`create table ${sql.id(SCHEMA, 'bare')} (like ${sql.id(SCHEMA, 'messages')} ${sql.raw(like)})`.execute(
    db,
  )
  await sql`checkpoint`.execute(db)
}

function psql(url: string, command: string): void {
  execFileSync('psql', ['-q', '-v', 'ON_ERROR_STOP=1', '-c', command, url], {
    stdio: ['ignore', 'ignore', 'inherit'],
  })
}
