import { execFileSync } from 'node:child_process'
import { mkdirSync, writeFileSync } from 'node:fs'
import { cpus, totalmem } from 'node:os'
import { fileURLToPath } from 'node:url'
import { sql } from 'kysely'
import type { Database } from '../src/db/database.ts'
import { VERSION } from '../src/version.ts'

/** One line of the table. `target` says what was promised, `met` whether it was kept; both absent for plain figures. */
export type Row = {
  work: string
  figure: string
  limit?: string
  ratio?: number
  target?: string
  met?: boolean
  /** What the database and its driver need for the same bytes without us, and our rate as a share of that. */
  raw?: string
  rawRatio?: number
}

export type BenchOptions = {
  /** Parts of a suite by name, where it has any. Default: all. */
  only?: string[]
  /** Default: the suite's own. */
  rounds?: number
  /** How many rows a part that can be larger is measured with. Default: the part's own. */
  rows?: number
}

export const root = fileURLToPath(new URL('..', import.meta.url))

export function median(values: number[]): number {
  const sorted = values.toSorted((a, b) => a - b)
  const middle = Math.floor(sorted.length / 2)
  const upper = sorted[middle] ?? Number.NaN
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? Number.NaN) + upper) / 2
}

export const perSecond = (rate: number) => `${Math.round(rate).toLocaleString('en')}/s`
export const ms = (value: number) => `${value < 10 ? value.toFixed(2) : Math.round(value)} ms`

export async function timed<T>(work: () => Promise<T>): Promise<{ ms: number; result: T }> {
  const started = performance.now()
  const result = await work()
  return { ms: performance.now() - started, result }
}

/**
 * Runs the contestants in turn, `rounds` times, and gives each one's median: what slows the machine slows all.
 * @param fewer how many rounds a contestant takes part in that is too slow for all of them
 */
export async function alternate<K extends string>(
  rounds: number,
  contestants: Record<K, () => Promise<number>>,
  fewer: Partial<Record<K, number>> = {},
): Promise<Record<K, number>> {
  const names = Object.keys(contestants) as K[]
  const measured = Object.fromEntries(names.map((name) => [name, [] as number[]])) as Record<K, number[]>
  for (let round = 0; round < rounds; round++) {
    for (const name of names) {
      if (round >= (fewer[name] ?? rounds)) continue
      const value = await contestants[name]()
      measured[name].push(value)
      process.stderr.write(`  round ${round + 1}/${rounds}  ${name}: ${value.toFixed(value < 10 ? 2 : 1)}\n`)
    }
  }
  return Object.fromEntries(names.map((name) => [name, median(measured[name])])) as Record<K, number>
}

/** Runs each for some seconds, unmeasured: what is measured is a process that has been at work, not one that starts. */
export async function warmUp(seconds: number, ...contestants: (() => Promise<unknown>)[]): Promise<void> {
  for (const work of contestants) {
    const until = performance.now() + 1_000 * seconds
    while (performance.now() < until) await work()
  }
}

export function printTable(rows: Row[]): void {
  const cells = rows.map((row) => [
    row.work,
    row.figure,
    row.limit ?? '',
    row.ratio === undefined ? '' : row.ratio.toFixed(2),
    row.target ?? '',
    row.met === undefined ? '' : row.met ? 'yes' : 'NO',
    row.raw ?? '',
    row.rawRatio === undefined ? '' : row.rawRatio.toFixed(2),
  ])
  const all = [['work', 'measured', 'limit', 'ratio', 'target', 'met', 'raw', 'of raw'], ...cells]
  const widths = all[0]?.map((_, column) => Math.max(...all.map((line) => line[column]?.length ?? 0))) ?? []
  for (const line of all)
    console.log(
      line
        .map((cell, i) => cell.padEnd(widths[i] ?? 0))
        .join('  ')
        .trimEnd(),
    )
}

export type Facts = Record<string, string | number>

export async function machineFacts(database: Database): Promise<Facts> {
  const setting = async (name: string) => {
    const { rows } = await sql<{ value: string }>`select current_setting(${name}) as value`.execute(
      database.db,
    )
    return rows[0]?.value ?? ''
  }
  return {
    threadbase: VERSION,
    commit: commit(),
    node: process.version,
    cpu: `${cpus().length} × ${cpus()[0]?.model ?? 'unknown'}`,
    memory_gb: Math.round(totalmem() / 2 ** 30),
    postgres: await setting('server_version'),
    fsync: await setting('fsync'),
    synchronous_commit: await setting('synchronous_commit'),
    shared_buffers: await setting('shared_buffers'),
    at: new Date().toISOString(),
  }
}

function commit(): string {
  try {
    return execFileSync('git', ['rev-parse', '--short', 'HEAD'], { cwd: root, encoding: 'utf8' }).trim()
  } catch {
    return 'unknown'
  }
}

/** The table on standard output, one JSON line after it, and the same JSON in bench/results. */
export function report(suite: string, facts: Facts, rows: Row[]): void {
  console.log(
    `\n${suite}\n${Object.entries(facts)
      .map(([name, value]) => `  ${name}: ${value}`)
      .join('\n')}\n`,
  )
  printTable(rows)
  const json = JSON.stringify({ suite, ...facts, rows })
  console.log(`\n${json}`)
  mkdirSync(`${root}bench/results`, { recursive: true })
  writeFileSync(`${root}bench/results/${suite}.json`, `${json}\n`)
}
