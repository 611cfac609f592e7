/**
 * The embedded PostgreSQL in a thread of its own. It speaks the wire protocol over the thread's message port:
 * bytes come in, bytes go out, and nothing listens on a socket that another process could reach.
 */
import { closeSync, existsSync, fsyncSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { dirname } from 'node:path'
import { parentPort, workerData } from 'node:worker_threads'
import { PGlite } from '@electric-sql/pglite'
import { pg_trgm } from '@electric-sql/pglite/contrib/pg_trgm'
import { vector } from '@electric-sql/pglite-pgvector'
import { createFrameReader } from './wire-frames.ts'

export type WorkerData = { directory: string; templateFile: string | undefined }
export type WorkerMessage = { ready: true } | { failed: string } | Uint8Array

const OPTIONS = {
  startParams: [...PGlite.defaultStartParams, '-c', 'shared_buffers=16MB'],
  // to be had, not created
  extensions: { vector, pg_trgm },
}

/**
 * Opens the directory, making it when it is not there. While it is being made a mark lies beside it; a directory
 * with its mark was left half made by a process that died, and is made again. Moving a finished one into place
 * would be as safe, but the engine would have to start twice.
 */
async function openDirectory({ directory, templateFile }: WorkerData): Promise<PGlite> {
  const mark = `${directory}.unfinished`
  if (existsSync(mark)) rmSync(directory, { recursive: true, force: true })
  else if (existsSync(directory)) return PGlite.create({ dataDir: directory, ...OPTIONS })
  writeFileSync(mark, '')
  syncDirectory(dirname(directory))
  const template = templateFile === undefined ? undefined : new Blob([readFileSync(templateFile)])
  const db = await PGlite.create({ dataDir: directory, loadDataDir: template, ...OPTIONS })
  rmSync(mark)
  syncDirectory(dirname(directory))
  return db
}

/** So that a power cut cannot bring the mark back beside a directory that has rows by then. */
function syncDirectory(path: string): void {
  const handle = openSync(path, 'r')
  try {
    fsyncSync(handle)
  } finally {
    closeSync(handle)
  }
}

async function serve(data: WorkerData): Promise<void> {
  const port = parentPort
  if (port === null) throw new Error('pglite-worker runs as a worker thread only')
  const db = await openDirectory(data)
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
