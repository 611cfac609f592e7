import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { chownSync, existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import pg from 'pg'

/** A PostgreSQL server of the test's own, which it may stop, kill and start. */
export type Cluster = {
  port: number
  url: string
  start(): Promise<void>
  /** `immediate` is a crash; `fast` breaks connections off and shuts down in order. */
  stop(mode?: 'immediate' | 'fast'): Promise<void>
  remove(): Promise<void>
}

type Identity = { uid?: number; gid?: number }

/** Why no cluster can be made here; undefined when one can. */
export function whyNoCluster(): string | undefined {
  if (findBin() === undefined) return 'initdb and postgres are neither in PATH nor in /usr/lib/postgresql'
  return identity() === undefined ? 'running as root and there is no user postgres' : undefined
}

/** True when clusters can be made; else says in one line what is skipped. Required under THREADBASE_TEST_REQUIRE=all. */
export function clusterAvailable(suite: string): boolean {
  const reason = whyNoCluster()
  if (reason === undefined) return true
  if (process.env.THREADBASE_TEST_REQUIRE === 'all') throw new Error(`${suite} needs a PostgreSQL: ${reason}`)
  console.warn(`\n*** ${suite} is SKIPPED: ${reason} ***\n`)
  return false
}

/** @param options.password asked of every client, by SCRAM; none by default */
export async function makeCluster(options: { password?: string; start?: boolean } = {}): Promise<Cluster> {
  const bin = findBin()
  const as = identity()
  if (bin === undefined || as === undefined) throw new Error(whyNoCluster())
  const directory = mkdtempSync(join(tmpdir(), 'threadbase-cluster-'))
  if (as.uid !== undefined) chownSync(directory, as.uid, as.gid ?? as.uid)
  const data = join(directory, 'data')
  const passwordFile = join(directory, 'password')
  writeFileSync(passwordFile, `${options.password ?? 'none'}\n`, { mode: 0o644 })
  const auth = options.password === undefined ? 'trust' : 'scram-sha-256'
  const init = ['-D', data, '-U', 'postgres', '-A', auth, '--pwfile', passwordFile, '-E', 'UTF8', '--no-sync']
  execFileSync(join(bin, 'initdb'), init, { ...as, cwd: directory, stdio: 'ignore' })
  const port = await freePort()
  const credentials = options.password === undefined ? 'postgres' : `postgres:${options.password}`
  const url = `postgres://${credentials}@127.0.0.1:${port}/postgres`
  let server: ChildProcess | undefined

  const start = async () => {
    const settings = [`port=${port}`, 'listen_addresses=127.0.0.1', `unix_socket_directories=${directory}`]
    const args = ['-D', data, ...settings.flatMap((setting) => ['-c', setting])]
    server = spawn(join(bin, 'postgres'), args, { ...as, cwd: directory, stdio: 'ignore' })
    await untilAnswers(url, server)
  }
  const stop = async (mode: 'immediate' | 'fast' = 'fast') => {
    const running = server
    server = undefined
    if (running === undefined || running.exitCode !== null) return
    const gone = new Promise((resolve) => running.once('exit', resolve))
    running.kill(mode === 'immediate' ? 'SIGQUIT' : 'SIGINT')
    await gone
  }
  const remove = async () => {
    await stop('immediate')
    rmSync(directory, { recursive: true, force: true })
  }
  if (options.start !== false) await start()
  return { port, url, start, stop, remove }
}

function findBin(): string | undefined {
  const versions = existsSync('/usr/lib/postgresql') ? readdirSync('/usr/lib/postgresql') : []
  const installed = versions
    .sort((a, b) => Number(b) - Number(a))
    .map((version) => `/usr/lib/postgresql/${version}/bin`)
  return [...installed, ...(process.env.PATH ?? '').split(':')].find(
    (path) => existsSync(join(path, 'initdb')) && existsSync(join(path, 'postgres')),
  )
}

/** PostgreSQL refuses to run as root. Undefined when there is nobody else to run it as. */
function identity(): Identity | undefined {
  if (process.getuid?.() !== 0) return {}
  try {
    const id = (flag: string) =>
      Number(execFileSync('id', [flag, 'postgres'], { encoding: 'utf8', stdio: 'pipe' }))
    return { uid: id('-u'), gid: id('-g') }
  } catch {
    return undefined
  }
}

/** A port of the loopback address that was free a moment ago. */
export function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer()
    server.once('error', reject)
    server.listen(0, '127.0.0.1', () => {
      const address = server.address()
      server.close(() => resolve(typeof address === 'object' && address !== null ? address.port : 0))
    })
  })
}

async function untilAnswers(url: string, server: ChildProcess): Promise<void> {
  for (let i = 0; i < 600; i++) {
    if (server.exitCode !== null) throw new Error(`postgres ended with code ${server.exitCode}`)
    const client = new pg.Client({ connectionString: url })
    client.on('error', () => {})
    try {
      await client.connect()
      await client.end()
      return
    } catch {
      await delay(50)
    }
  }
  throw new Error('postgres did not start within 30 s')
}
