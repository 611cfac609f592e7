import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { createConnection } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { freePort } from './postgres-cluster.ts'

/** A Redis server of the test's own, which it may kill, start and halt. It keeps nothing on disk. */
export type RedisServer = {
  port: number
  url: string
  start(): Promise<void>
  /** At once, with no goodbye to anyone. */
  kill(): Promise<void>
  /** Answers nobody from now on, but keeps its connections and takes new ones. */
  hang(): void
  resume(): void
  remove(): Promise<void>
}

/** True when servers can be started; else says in one line what is skipped. Required under THREADBASE_TEST_REQUIRE=all. */
export function redisServerAvailable(suite: string): boolean {
  try {
    execFileSync('redis-server', ['--version'], { stdio: 'ignore' })
    return true
  } catch {
    const reason = 'redis-server is not in PATH'
    if (process.env.THREADBASE_TEST_REQUIRE === 'all') throw new Error(`${suite} needs a Redis: ${reason}`)
    console.warn(`\n*** ${suite} is SKIPPED: ${reason} ***\n`)
    return false
  }
}

/** @param options.settings lines of redis.conf as arguments, such as `['--requirepass', 'secret']` */
export async function makeRedisServer(
  options: { settings?: string[]; start?: boolean } = {},
): Promise<RedisServer> {
  const port = await freePort()
  const directory = mkdtempSync(join(tmpdir(), 'threadbase-redis-'))
  const settings = ['--bind', '127.0.0.1', '--port', String(port), '--dir', directory, '--save', '']
  let server: ChildProcess | undefined

  const start = async () => {
    server = spawn('redis-server', [...settings, ...(options.settings ?? [])], { stdio: 'ignore' })
    await untilListens(port, server)
  }
  const kill = async () => {
    const running = server
    server = undefined
    if (running === undefined || running.exitCode !== null) return
    const gone = new Promise((resolve) => running.once('exit', resolve))
    running.kill('SIGKILL')
    await gone
  }
  const remove = async () => {
    await kill()
    rmSync(directory, { recursive: true, force: true })
  }
  if (options.start !== false) await start()
  return {
    port,
    url: `redis://127.0.0.1:${port}`,
    start,
    kill,
    hang: () => void server?.kill('SIGSTOP'),
    resume: () => void server?.kill('SIGCONT'),
    remove,
  }
}

async function untilListens(port: number, server: ChildProcess): Promise<void> {
  for (let i = 0; i < 600; i++) {
    if (server.exitCode !== null) throw new Error(`redis-server ended with code ${server.exitCode}`)
    if (await listens(port)) return
    await delay(20)
  }
  throw new Error('redis-server did not start within 12 s')
}

function listens(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = createConnection({ host: '127.0.0.1', port })
    socket.once('connect', () => {
      socket.destroy()
      resolve(true)
    })
    socket.once('error', () => resolve(false))
  })
}
