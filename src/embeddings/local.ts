import { Worker } from 'node:worker_threads'
import { ThreadbaseError } from '../core/errors.ts'
import type { Logger } from '../core/log.ts'
import type { Embedder, EmbedOptions } from './embedder.ts'
import type { EngineName, LocalWorkerData, LocalWorkerMessage } from './local-worker.ts'
import { toReadable } from './text.ts'

export type LocalOptions = {
  /** Default `auto`: onnxruntime-node where it is installed, else WebAssembly. */
  engine?: 'auto' | EngineName
  log: Logger
}

/** Also of vectors that some other implementation of the model made. */
export const LOCAL_MODEL = 'minilm-l6-v2'
const BATCH_SIZE = 32
const WORKER = new URL(
  import.meta.url.endsWith('.ts') ? './local-worker.ts' : './local-worker.js',
  import.meta.url,
)

/** The texts of one call. */
type Job = {
  texts: string[]
  /** Places of texts that are not with the model yet, longest first: those of like length are taken together. */
  waiting: number[]
  vectors: Float32Array[]
  /** How many have their vectors. */
  done: number
  settled: boolean
  resolve(vectors: Float32Array[]): void
  reject(error: unknown): void
}

type Batch = { job: Job; places: number[] }
type Limits = { maxTexts: number; maxChars: number }
type Running = {
  worker: Worker
  engine: (Limits & { name: EngineName }) | undefined
  batch: Batch | undefined
}

/**
 * all-MiniLM-L6-v2 in a thread of this process, which starts with the first call and does not keep the process alive.
 * It reads the first 256 tokens of a text, about 1,000 letters.
 */
export function openLocal({ engine = 'auto', log }: LocalOptions): Embedder {
  const urgent: Job[] = []
  const background: Job[] = []
  let running: Running | undefined
  let used: EngineName | undefined
  let closed = false

  function start(): Running {
    const workerData: LocalWorkerData = { engine }
    const worker = new Worker(WORKER, { workerData, name: 'threadbase-embeddings' })
    const mine: Running = { worker, engine: undefined, batch: undefined }
    const end = (reason: string, cause?: unknown) => {
      if (running !== mine) return
      running = undefined
      void worker.terminate()
      failAll(reason, cause)
    }
    worker.on('message', (message: LocalWorkerMessage) => {
      if (running !== mine) return
      if ('ready' in message) {
        mine.engine = message.ready
        used = message.ready.name
        if (message.fellBack !== undefined)
          log.warn({ reason: message.fellBack }, 'onnxruntime-node does not work: embeddings use WebAssembly')
      } else if ('failed' in message) {
        return end(`the embedding model cannot be loaded: ${message.failed}`)
      } else if ('refused' in message) {
        return refuse(mine, message.refused)
      } else {
        finish(mine, message.vectors)
      }
      feed(mine)
    })
    worker.on('error', (error) => end(`the embedding model failed: ${error.message}`, error))
    worker.on('exit', (code) => end(`the thread of the embedding model ended with code ${code}`))
    return mine
  }

  /** Gives the model its next texts, if it has none. */
  function feed(to: Running): void {
    if (to.engine === undefined || to.batch !== undefined) return
    to.batch = takeBatch(urgent, to.engine) ?? takeBatch(background, to.engine)
    if (to.batch === undefined) {
      to.worker.unref()
      return
    }
    const { job, places } = to.batch
    to.worker.postMessage(places.map((place) => job.texts[place]))
  }

  function finish(from: Running, vectors: Float32Array[]): void {
    if (from.batch === undefined) return
    const { job, places } = from.batch
    from.batch = undefined
    for (const [i, place] of places.entries()) job.vectors[place] = vectors[i] as Float32Array
    job.done += places.length
    if (job.done === job.texts.length) settle(job, () => job.resolve(job.vectors))
  }

  /** The engine is in no known state after an error: the other texts get a new one. */
  function refuse(by: Running, reason: string): void {
    const { job } = by.batch as Batch
    running = undefined
    void by.worker.terminate()
    settle(job, () =>
      job.reject(new ThreadbaseError('invalid_input', `the embedding model failed: ${reason}`)),
    )
    if (urgent.length + background.length > 0) running = start()
  }

  function settle(job: Job, answer: () => void): void {
    if (job.settled) return
    job.settled = true
    for (const queue of [urgent, background]) {
      const at = queue.indexOf(job)
      if (at >= 0) queue.splice(at, 1)
    }
    answer()
  }

  function failAll(reason: string, cause?: unknown): void {
    const error = new ThreadbaseError('unavailable', reason, undefined, { cause })
    for (const job of [...urgent, ...background]) settle(job, () => job.reject(error))
  }

  async function embed(texts: readonly string[], { urgent: isUrgent, signal }: EmbedOptions = {}) {
    signal?.throwIfAborted()
    if (closed) throw new ThreadbaseError('unavailable', 'the embedding model is closed')
    if (texts.length === 0) return []
    const { promise, resolve, reject } = Promise.withResolvers<Float32Array[]>()
    const job = newJob(texts.map(toReadable), resolve, reject)
    const giveUp = () => settle(job, () => reject(signal?.reason))
    signal?.addEventListener('abort', giveUp, { once: true })
    ;(isUrgent === true ? urgent : background).push(job)
    running ??= start()
    // while somebody waits for it, the process does not end
    running.worker.ref()
    feed(running)
    return promise.finally(() => signal?.removeEventListener('abort', giveUp))
  }

  return {
    model: LOCAL_MODEL,
    get description() {
      return `all-MiniLM-L6-v2 in this process${used === undefined ? '' : ` (${used})`}`
    },
    batchSize: BATCH_SIZE,
    local: true,
    embed,
    async close() {
      closed = true
      const last = running
      running = undefined
      failAll('the embedding model is closed')
      await last?.worker.terminate()
    },
  }
}

function newJob(texts: string[], resolve: Job['resolve'], reject: Job['reject']): Job {
  const lengthAt = (place: number) => texts[place]?.length ?? 0
  const waiting = texts.map((_, place) => place).sort((a, b) => lengthAt(b) - lengthAt(a))
  return { texts, waiting, vectors: [], done: 0, settled: false, resolve, reject }
}

/** How much of a batch may be there to fill texts up to the length of the longest. */
const MAX_FILLING = 0.2

/** The shortest texts of the first job that has any left, as far as they are of like length. */
function takeBatch(queue: readonly Job[], { maxTexts, maxChars }: Limits): Batch | undefined {
  const job = queue.find(({ waiting }) => waiting.length > 0)
  if (job === undefined) return undefined
  const places: number[] = []
  let chars = 0
  for (let place = job.waiting.at(-1); place !== undefined; place = job.waiting.at(-1)) {
    // the longest so far
    const length = job.texts[place]?.length ?? 0
    const filled = (places.length + 1) * length
    const tooMuch = filled > maxChars || filled * (1 - MAX_FILLING) > chars + length
    if (places.length > 0 && (places.length >= maxTexts || tooMuch)) break
    places.push(place)
    chars += length
    job.waiting.pop()
  }
  return { job, places }
}
