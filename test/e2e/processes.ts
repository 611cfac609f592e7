import { type ChildProcess, spawn } from 'node:child_process'
import { cp, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { Readable, Writable } from 'node:stream'
import { fileURLToPath } from 'node:url'
import { afterAll, inject } from 'vitest'
import { runCli } from '../../src/cli/run.ts'
import { openPglite } from '../../src/db/pglite.ts'
import { makeTempDir, newSchemaName, postgresUrl, recordingLog, templateFile, testRls } from '../harness.ts'
import { childEnv } from './installed.ts'

// the same modules are compiled by each process
const compileCache = { NODE_COMPILE_CACHE: join(inject('runDirectory'), 'compile-cache') }

const MAIN = fileURLToPath(new URL('../../src/cli/main.ts', import.meta.url))

export type Environment = Record<string, string | undefined>

export type Ended = { code: number | null; signal: NodeJS.Signals | null }

export type Running = {
  process: ChildProcess
  pid: number
  /** All that it has written so far. */
  stdout(): string
  stderr(): string
  kill(signal: NodeJS.Signals): void
  exited: Promise<Ended>
}

export type Served = Running & { url: string }

export type Result = Ended & { stdout: string; stderr: string }

/** Of every store and command; no test loads the embedding model that does not say so. */
const NO_MODEL = { EMBEDDING_MODEL: 'none' }
const commonEnv: Environment = { DATABASE_RLS: testRls, ...NO_MODEL }
const running = new Set<ChildProcess>()
const directories: string[] = []

/** Ends what a test file's processes left behind; call it once in each file that starts some. */
export function cleanUpAfterAll(): void {
  afterAll(async () => {
    for (const child of running) child.kill('SIGKILL')
    for (const directory of directories) await rm(directory, { recursive: true, force: true })
  })
}

/** Starts `threadbase ARGS` from the source, or another command, with only the given variables set. */
export function start(args: string[], env: Environment = {}, command?: string, cwd?: string): Running {
  const [program, first] = command === undefined ? [process.execPath, [MAIN]] : [command, []]
  const child = spawn(program, [...first, ...args], {
    env: { ...childEnv, ...compileCache, ...commonEnv, ...env },
    cwd,
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  running.add(child)
  const texts = { stdout: '', stderr: '' }
  for (const name of ['stdout', 'stderr'] as const)
    child[name].setEncoding('utf8').on('data', (text: string) => {
      texts[name] += text
    })
  const exited = new Promise<Ended>((resolve, reject) => {
    child.once('error', reject)
    child.once('close', (code, signal) => {
      running.delete(child)
      resolve({ code, signal })
    })
  })
  return {
    process: child,
    pid: Number(child.pid),
    stdout: () => texts.stdout,
    stderr: () => texts.stderr,
    kill: (signal) => void child.kill(signal),
    exited,
  }
}

/** Runs `threadbase ARGS` to its end. */
export async function run(
  args: string[],
  env: Environment = {},
  command?: string,
  cwd?: string,
): Promise<Result> {
  const child = start(args, env, command, cwd)
  const ended = await child.exited
  return { ...ended, stdout: child.stdout(), stderr: child.stderr() }
}

/** Starts `threadbase serve` on a free port and waits until it has printed its banner. */
export async function serve(env: Environment, args = ['--port', '0'], command?: string): Promise<Served> {
  const child = start(['serve', ...args], env, command)
  const url = await new Promise<string>((resolve, reject) => {
    child.process.stdout?.on('data', () => {
      // the banner's last line: all of it is there
      const found = /listening on (\S+)[\s\S]*curl .*\n/.exec(child.stdout())?.[1]
      if (found !== undefined) resolve(found)
    })
    child.exited.then(({ code, signal }) =>
      reject(new Error(`serve ended with ${code ?? signal} before it listened:\n${child.stderr()}`)),
    )
  })
  return { ...child, url }
}

export async function stop(server: Running): Promise<Ended> {
  server.kill('SIGTERM')
  return server.exited
}

/**
 * As {@link run}, without a process of its own: for what ends without a signal.
 * @param input what standard input holds
 */
export async function runHere(args: string[], env: Environment = {}, input = ''): Promise<Result> {
  const texts = { stdout: '', stderr: '' }
  const collect = (name: 'stdout' | 'stderr') =>
    new Writable({
      write: (chunk, _encoding, done) => {
        texts[name] += chunk
        done()
      },
    }) as unknown as NodeJS.WriteStream
  const stdin = Readable.from([Buffer.from(input)]) as unknown as NodeJS.ReadStream
  const code = await runCli(args, {
    env: { ...commonEnv, ...env },
    stdin,
    stdout: collect('stdout'),
    stderr: collect('stderr'),
  })
  return { code, signal: null, ...texts }
}

let prepared: Promise<string> | undefined

/** A data directory with an embedded store in it, not migrated: a source tree has no template to start from. */
export async function newDataDir(): Promise<string> {
  prepared ??= prepare()
  const directory = await temporaryDirectory()
  await cp(await prepared, directory, { recursive: true })
  return directory
}

async function prepare(): Promise<string> {
  const directory = await temporaryDirectory()
  const { log } = recordingLog()
  await (await openPglite({ dataDir: directory, templateFile, log })).close()
  return directory
}

export async function temporaryDirectory(): Promise<string> {
  const directory = await makeTempDir()
  directories.push(directory)
  return directory
}

export type Store = { name: string; available: boolean; newEnv(): Promise<Environment> }

/** What `serve` can keep its records in; each environment is a new, empty store. */
export const stores: Store[] = [
  {
    name: 'embedded',
    available: true,
    newEnv: async () => ({ ...NO_MODEL, DATA_DIR: await newDataDir() }),
  },
  {
    name: 'postgres',
    available: postgresUrl !== null,
    newEnv: async () => ({
      ...NO_MODEL,
      DATABASE_URL: String(postgresUrl),
      DATABASE_SCHEMA: newSchemaName(),
    }),
  },
]

export const availableStores = stores.filter(({ available }) => available)
