import { execFileSync } from 'node:child_process'
import { existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { root } from './harness.ts'

export type BenchPostgres = { url: string; stop(): void }

/** The server of THREADBASE_BENCH_POSTGRES, else one of our own that is stopped at the end. */
export function startPostgres(): BenchPostgres {
  const given = process.env.THREADBASE_BENCH_POSTGRES
  if (given !== undefined && given !== '') return { url: given, stop: () => {} }
  const dir = join(tmpdir(), `threadbase-bench-${process.pid}`)
  const script = join(root, 'scripts/test-postgres.sh')
  const url = execFileSync(script, ['start', dir], { encoding: 'utf8' }).trim().split('\n').at(-1) ?? ''
  return { url, stop: () => void execFileSync(script, ['stop', dir]) }
}

function pgbenchPath(): string {
  const base = '/usr/lib/postgresql'
  const versions = existsSync(base) ? readdirSync(base).sort((a, b) => Number(b) - Number(a)) : []
  const found = versions.map((version) => join(base, version, 'bin/pgbench')).find((path) => existsSync(path))
  return found ?? 'pgbench'
}

/** Transactions per second of `pgbench` running one script with prepared statements. */
export function pgbench(url: string, script: string, options: { clients: number; seconds: number }): number {
  const dir = mkdtempSync(join(tmpdir(), 'threadbase-pgbench-'))
  try {
    const file = join(dir, 'script.sql')
    writeFileSync(file, script)
    const args = [
      '-n',
      '-M',
      'prepared',
      '-c',
      String(options.clients),
      '-j',
      '2',
      '-T',
      String(options.seconds),
      '-f',
      file,
      url,
    ]
    const out = execFileSync(pgbenchPath(), args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] })
    const tps = /tps = ([\d.]+)/.exec(out)?.[1]
    if (tps === undefined) throw new Error(`pgbench printed no tps:\n${out}`)
    return Number(tps)
  } finally {
    rmSync(dir, { recursive: true, force: true })
  }
}
