/**
 * The embedded PostgreSQL in a thread of its own. It speaks the wire protocol over the thread's message port:
 * bytes come in, bytes go out, and nothing listens on a socket that another process could reach.
 */
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { parentPort, workerData } from 'node:worker_threads'
import { PGlite } from '@electric-sql/pglite'
import { createFrameReader } from './wire-frames.ts'

export type WorkerData = { directory: string; templateFile: string | undefined }
export type WorkerMessage = { ready: true } | { failed: string } | Uint8Array

const START_PARAMS = [...PGlite.defaultStartParams, '-c', 'shared_buffers=16MB']
const NEW_PREFIX = '.new-'

/** A directory is complete or absent: it is made beside its place and moved there. */
async function prepare({ directory, templateFile }: WorkerData): Promise<void> {
  const parent = dirname(directory)
  mkdirSync(parent, { recursive: true, mode: 0o700 })
  for (const name of readdirSync(parent)) {
    if (name.startsWith(NEW_PREFIX)) rmSync(join(parent, name), { recursive: true, force: true })
  }
  if (existsSync(directory)) return
  const fresh = join(parent, `${NEW_PREFIX}${process.pid}`)
  const template = templateFile === undefined ? undefined : new Blob([readFileSync(templateFile)])
  const db = await PGlite.create({ dataDir: fresh, loadDataDir: template, startParams: START_PARAMS })
  await db.close()
  renameSync(fresh, directory)
}

async function serve(data: WorkerData): Promise<void> {
  const port = parentPort
  if (port === null) throw new Error('pglite-worker runs as a worker thread only')
  await prepare(data)
  const db = await PGlite.create({ dataDir: data.directory, startParams: START_PARAMS })
  const waiting: Uint8Array[] = []
  let working = false
  const work = async () => {
    if (working) return
    working = true
    for (let request = waiting.shift(); request !== undefined; request = waiting.shift()) {
      const answer = await answerTo(db, request)
      if (answer.length > 0) port.postMessage(answer)
    }
    working = false
  }
  const frames = createFrameReader((request) => waiting.push(request))
  port.on('message', (message: Uint8Array | 'close') => {
    if (message === 'close') {
      void db.close().then(() => port.close())
      return
    }
    frames(message)
    // an error inside the engine leaves it in no known state: the thread ends and is started again
    work().catch((error: unknown) => {
      throw error
    })
  })
  port.postMessage({ ready: true } satisfies WorkerMessage)
}

async function answerTo(db: PGlite, request: Uint8Array): Promise<Uint8Array> {
  const parts: Uint8Array[] = []
  const collect = { onRawData: (part: Uint8Array) => parts.push(part.slice()) }
  await db.runExclusive(() => db.execProtocolRawStream(request, collect))
  return parts.length === 1 && parts[0] !== undefined ? parts[0] : Buffer.concat(parts)
}

try {
  await serve(workerData as WorkerData)
} catch (error) {
  parentPort?.postMessage({
    failed: error instanceof Error ? error.message : String(error),
  } satisfies WorkerMessage)
  parentPort?.close()
}
