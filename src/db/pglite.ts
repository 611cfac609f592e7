import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { Duplex } from 'node:stream'
import { fileURLToPath } from 'node:url'
import { Worker } from 'node:worker_threads'
import pg from 'pg'
import { ThreadbaseError } from '../core/errors.ts'
import { type CommonOptions, createDatabase, type Database } from './database.ts'
import { lockDirectory } from './directory-lock.ts'
import type { Session, SessionSource } from './driver.ts'
import type { WorkerData, WorkerMessage } from './pglite-worker.ts'
import { typeParsers } from './types.ts'

export type PgliteOptions = CommonOptions & {
  /** The store lives in `pg` under this directory; one process at a time may have it open. */
  dataDir: string
  /** A prepared database (a `dumpDataDir` archive) for a fresh directory. Default: the one of the built package, if any. */
  templateFile?: string
}

const WORKER = new URL(
  import.meta.url.endsWith('.ts') ? './pglite-worker.ts' : './pglite-worker.js',
  import.meta.url,
)
const BUILT_TEMPLATE = fileURLToPath(new URL('../embedded/template.tar.gz', import.meta.url))

/**
 * Opens the embedded store: PostgreSQL in WebAssembly, in a worker thread. A fresh directory takes about a second
 * from a prepared template and about five without one.
 * @throws conflict when another process has the directory open, and says which.
 */
export async function openPglite(options: PgliteOptions): Promise<Database> {
  const { dataDir, log } = options
  const templateFile = options.templateFile ?? (existsSync(BUILT_TEMPLATE) ? BUILT_TEMPLATE : undefined)
  const directory = join(dataDir, 'pg')
  const lock = await lockDirectory(dataDir)
  if (!existsSync(directory) && templateFile === undefined) {
    log.info({ directory }, 'preparing a new embedded store; this takes some seconds, once')
  }
  const source = workerSource({ directory, templateFile }, lock.release)
  try {
    source.release(await source.acquire())
  } catch (error) {
    await source.close()
    throw error
  }
  return createDatabase(
    source,
    {
      engine: 'pglite',
      description: `embedded PostgreSQL (PGlite) in ${directory}`,
      parallelism: 1,
      stats: () => ({ open: 1, idle: 0, waiting: 0 }),
    },
    { ...options, preparedStatements: true, queryTimeoutMs: undefined },
  )
}

type Running = { session: Session; client: pg.Client; worker: Worker; exited: Promise<void> }

/** One session for all callers; a session that broke is replaced, thread and all, when the next caller comes. */
function workerSource(data: WorkerData, onClosed: () => Promise<void>): SessionSource {
  let running: Promise<Running> | undefined
  let closed = false
  const current = async (): Promise<Running> => {
    if (closed) throw new ThreadbaseError('unavailable', 'the embedded store is closed')
    running ??= start(data)
    const now = running
    try {
      const result = await now
      if (!result.session.broken) return result
      await stop(result)
    } catch (error) {
      if (running === now) running = undefined
      throw error
    }
    if (running === now) running = undefined
    return current()
  }
  return {
    shared: true,
    acquire: async () => (await current()).session,
    release: () => {},
    close: async () => {
      if (closed) return
      closed = true
      const last = await running?.catch(() => undefined)
      if (last !== undefined) await stop(last)
      await onClosed()
    },
  }
}

async function start(data: WorkerData): Promise<Running> {
  const worker = new Worker(WORKER, { workerData: data, name: 'threadbase-pglite' })
  const exited = new Promise<void>((resolve) => worker.once('exit', () => resolve()))
  // an error of the thread is followed by its exit, which is what the stream listens to
  worker.on('error', () => {})
  try {
    await untilReady(worker)
    const client = new pg.Client({
      user: 'postgres',
      database: 'postgres',
      pipeline: true,
      types: typeParsers,
      stream: () => new WorkerStream(worker) as never,
    })
    const session: Session = { client, broken: false, destroy: () => void worker.terminate() }
    const markBroken = () => {
      session.broken = true
    }
    client.on('error', markBroken)
    client.on('end', markBroken)
    await client.connect()
    // all sessions of PGlite are one: statements prepared by an earlier connection would still be there
    await client.query('deallocate all')
    return { session, client, worker, exited }
  } catch (cause) {
    await worker.terminate()
    const reason = cause instanceof Error ? cause.message : String(cause)
    throw new ThreadbaseError('unavailable', `the embedded store cannot be opened: ${reason}`, undefined, {
      cause,
    })
  }
}

async function stop({ session, client, worker, exited }: Running): Promise<void> {
  if (!session.broken) await client.end()
  worker.postMessage('close')
  const tooLong = setTimeout(() => void worker.terminate(), 10_000)
  await exited
  clearTimeout(tooLong)
}

function untilReady(worker: Worker): Promise<void> {
  return new Promise((resolve, reject) => {
    const onMessage = (message: WorkerMessage) => {
      if ('ready' in message) resolve()
      else if ('failed' in message) reject(new Error(message.failed))
    }
    worker.once('message', onMessage)
    worker.once('error', reject)
    worker.once('exit', (code) => reject(new Error(`its thread ended with code ${code}`)))
  })
}

/** What `pg` takes for a socket: bytes to and from the worker thread. */
class WorkerStream extends Duplex {
  readonly #worker: Worker
  readonly #onMessage = (bytes: Uint8Array) => {
    this.push(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength))
  }
  readonly #onExit = () => this.destroy(new Error('the thread of the embedded store ended'))

  constructor(worker: Worker) {
    super()
    this.#worker = worker
    worker.on('message', this.#onMessage)
    worker.once('exit', this.#onExit)
  }

  connect(): this {
    process.nextTick(() => this.emit('connect'))
    return this
  }

  // pg tunes and holds sockets; a thread needs neither
  setNoDelay(): this {
    return this
  }
  setKeepAlive(): this {
    return this
  }
  ref(): this {
    this.#worker.ref()
    return this
  }
  unref(): this {
    this.#worker.unref()
    return this
  }

  override _read(): void {}

  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    this.#worker.postMessage(chunk)
    done()
  }

  override _writev(chunks: { chunk: Buffer }[], done: () => void): void {
    this.#worker.postMessage(Buffer.concat(chunks.map(({ chunk }) => chunk)))
    done()
  }

  override _final(done: () => void): void {
    this.push(null)
    done()
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    this.#worker.off('message', this.#onMessage)
    this.#worker.off('exit', this.#onExit)
    done(error)
  }
}
