import { type ChildProcess, spawn } from 'node:child_process'
import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import { createConnection } from 'node:net'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
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

/**
 * True when servers can be started; else says in one line what is skipped. Required under THREADBASE_TEST_REQUIRE=all.
 * @param programs what the suite needs beside `redis-server`
 */
export function redisServerAvailable(suite: string, programs: string[] = []): boolean {
  const missing = ['redis-server', ...programs].filter((program) => !isInPath(program))
  if (missing.length === 0) return true
  const reason = `not in PATH: ${missing.join(', ')}`
  if (process.env.THREADBASE_TEST_REQUIRE === 'all') throw new Error(`${suite} cannot run: ${reason}`)
  console.warn(`\n*** ${suite} is SKIPPED: ${reason} ***\n`)
  return false
}

const isInPath = (program: string) =>
  (process.env.PATH ?? '').split(delimiter).some((directory) => existsSync(join(directory, program)))

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
