import { execFileSync } from 'node:child_process'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { root } from './harness.ts'

export type BenchRedis = { url: string; stop(): void }

/** The server of THREADBASE_BENCH_REDIS, else one of our own; undefined, and said so, where there is none to be had. */
export function startRedis(): BenchRedis | undefined {
  const given = process.env.THREADBASE_BENCH_REDIS
  if (given !== undefined && given !== '') return { url: given, stop: () => {} }
  const dir = join(tmpdir(), `threadbase-bench-redis-${process.pid}`)
  const script = join(root, 'scripts/test-redis.sh')
  try {
    const url = execFileSync(script, ['start', dir], { encoding: 'utf8' }).trim().split('\n').at(-1) ?? ''
    return { url, stop: () => void execFileSync(script, ['stop', dir]) }
  } catch {
    console.error('there is no Redis: what needs one is left out')
    return undefined
  }
}
