/**
 * The local model in a thread of its own, so that nothing else waits while it computes. One batch comes in, its vectors
 * go out, then comes the next: what is first is decided outside.
 */
import { parentPort, workerData } from 'node:worker_threads'
import { openWasm } from './local-wasm.ts'

export type EngineName = 'wasm' | 'onnx'
export type LocalWorkerData = { engine: 'auto' | EngineName }

/** What runs the model. */
export type Engine = {
  name: EngineName
  /** The most that it takes at a time with profit; more than `maxChars` only in a single text. */
  maxTexts: number
  maxChars: number
  embed(texts: readonly string[]): Promise<Float32Array[]>
}

export type LocalWorkerMessage =
  | { ready: Omit<Engine, 'embed'>; fellBack?: string }
  | { failed: string }
  | { refused: string }
  | { vectors: Float32Array[] }

const ONNX_PACKAGE = 'onnxruntime-node'

async function openEngine({ engine }: LocalWorkerData): Promise<[Engine, fellBack?: string]> {
  if (engine === 'wasm') return [await openWasm()]
  try {
    return [await (await import('./local-onnx.ts')).openOnnx()]
  } catch (error) {
    if (engine === 'auto') return [await openWasm(), isNotInstalled(error) ? undefined : messageOf(error)]
    if (!isNotInstalled(error)) throw error
    throw new Error(`EMBEDDING_ENGINE=onnx needs the package ${ONNX_PACKAGE}, which is not installed`)
  }
}

function isNotInstalled(error: unknown): boolean {
  const { code } = error as { code?: unknown }
  return code === 'ERR_MODULE_NOT_FOUND' && messageOf(error).includes(`'${ONNX_PACKAGE}'`)
}

const messageOf = (error: unknown) => (error instanceof Error ? error.message : String(error))

const port = parentPort
if (port === null) throw new Error('local-worker runs as a worker thread only')
const send = (message: LocalWorkerMessage) => port.postMessage(message)

try {
  const [{ embed, ...ready }, fellBack] = await openEngine(workerData as LocalWorkerData)
  port.on('message', (texts: string[]) => {
    embed(texts).then(
      (vectors) => send({ vectors }),
      (error) => send({ refused: messageOf(error) }),
    )
  })
  send({ ready, fellBack })
} catch (error) {
  send({ failed: messageOf(error) })
  port.close()
}
