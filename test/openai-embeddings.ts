import { createHash } from 'node:crypto'

/** The body of a request, as it was sent. */
export type EmbeddingRequest = {
  model: string
  input: string | string[]
  encoding_format?: 'float' | 'base64'
  dimensions?: number
}

type Failure = { status: number; error: string; headers?: Record<string, string> }
type Answer<Fault> = Failure | { fault: Fault } | { json: object }

/** What a model is like, and what its server does instead of answering. */
export type EmbeddingModel<Fault = never> = {
  /** Numbers of a vector where a request asks for no other. Default 1536. */
  length?: number
  /** What it does with `dimensions`. Default: as it is asked. */
  dimensions?: 'refused' | 'ignored'
  /** Default: as it is asked; `float`: knows no other form. */
  form?: 'float'
  /** Instead of vectors; undefined: vectors. */
  instead?(request: EmbeddingRequest): Answer<Fault> | undefined
}

/** As the real API answers, which refuses empty texts; vectors come in reverse, each with its place. */
export function answerEmbeddings<Fault>(
  request: EmbeddingRequest,
  model: EmbeddingModel<Fault>,
): Answer<Fault> {
  const texts = typeof request.input === 'string' ? [request.input] : request.input
  const problem = findProblem(request, texts, model)
  if (problem !== undefined) return { status: 400, error: problem }
  const instead = model.instead?.(request)
  if (instead !== undefined) return instead
  const asked = model.dimensions === 'ignored' ? undefined : request.dimensions
  const data = texts.map((text, index) => ({
    object: 'embedding',
    index,
    embedding: write(vectorOf(text, asked ?? model.length ?? 1536), model.form ?? request.encoding_format),
  }))
  const usage = { prompt_tokens: texts.length, total_tokens: texts.length }
  return { json: { object: 'list', data: data.reverse(), model: request.model, usage } }
}

/** Texts that share words are near each other. Not of length 1. */
export function vectorOf(text: string, length: number): Float32Array {
  const sum = new Float32Array(length)
  // a text without words has a place, too
  const words = text.toLowerCase().match(/[\p{L}\p{N}]+/gu) ?? [text]
  for (const word of words) {
    for (let at = 0, block = 0; at < length; block++) {
      const hash = createHash('sha256').update(`${block} ${word}`).digest()
      for (let i = 0; i < 32 && at < length; i++, at++) sum[at] = (sum[at] ?? 0) + (hash[i] ?? 0) - 127.5
    }
  }
  return sum
}

function write(vector: Float32Array, form: 'float' | 'base64' = 'float'): number[] | string {
  if (form === 'float') return [...vector]
  return Buffer.from(vector.buffer, vector.byteOffset, vector.byteLength).toString('base64')
}

function findProblem(
  { model: name, dimensions }: EmbeddingRequest,
  texts: string[],
  { dimensions: taken }: EmbeddingModel<unknown>,
): string | undefined {
  if (typeof name !== 'string' || name === '') return 'model is missing'
  if (!Array.isArray(texts) || texts.length === 0 || texts.length > 2_048) return 'input has 1 to 2048 texts'
  if (texts.some((text) => typeof text !== 'string' || text === '')) return 'input has an empty text'
  if (taken === 'refused' && dimensions !== undefined) return 'this model takes no dimensions'
  return undefined
}
