import { ThreadbaseError } from '../../core/errors.ts'
import { invalid } from '../run-config.ts'
import { parsePath, type TextPath, toText, valuesAt } from './texts.ts'

/** What LangChain's `Embeddings` have and a store needs. */
export type EmbeddingsLike = {
  embedDocuments(texts: string[]): Promise<number[][]>
  embedQuery(text: string): Promise<number[]>
}
/** A vector for each text, in order. */
export type EmbedFunction = (texts: string[]) => Promise<number[][]>

/** What items are found by. */
export type StoreIndex = {
  /** How many numbers a vector has. */
  dims: number
  /** Without them a query is a search by words. */
  embeddings?: EmbeddingsLike | EmbedFunction
  /** Which texts of a value are found; each has a vector of its own. Default `['$']`, the whole value as one text. */
  fields?: string[]
  /**
   * Up to how many vectors below a namespace are compared one by one, which is exact; where there are more, the index
   * is asked. Default 2000; on the embedded store `Infinity`, for which there is no index.
   */
  exactUpTo?: number
}

export type Embedder = {
  dims: number
  /** A vector for each text, each text once. @throws unavailable when the model fails; invalid_input for odd vectors */
  embed(texts: string[]): Promise<Map<string, number[]>>
  /** @throws like embed */
  embedQueries(texts: string[]): Promise<Map<string, number[]>>
}

/** @throws invalid_input that names the option */
export function readFields(fields: string[] = ['$'], name = 'index.fields'): TextPath[] {
  return fields.map((field) => {
    const path = typeof field === 'string' ? parsePath(field) : undefined
    if (path === undefined) throw invalid(`${name} has ${String(field)}, which is not a path`, name)
    return path
  })
}

/** The texts of a value that are embedded. */
export function textsOf(value: unknown, fields: TextPath[]): string[] {
  return fields.flatMap((field) => valuesAt(value, field).flatMap((one) => toText(one) ?? []))
}

/** Undefined without embeddings. @throws invalid_input that names the option */
export function createEmbedder(index: StoreIndex | undefined): Embedder | undefined {
  if (index?.embeddings === undefined) return undefined
  const { dims, embeddings } = index
  if (!Number.isInteger(dims) || dims < 1 || dims > 16_000)
    throw invalid('index.dims must be a whole number from 1 to 16000', 'index.dims')
  const documents =
    typeof embeddings === 'function' ? embeddings : (texts: string[]) => embeddings.embedDocuments(texts)
  const queries =
    typeof embeddings === 'function'
      ? embeddings
      : (texts: string[]) => Promise.all(texts.map((text) => embeddings.embedQuery(text)))
  const make = (embed: EmbedFunction) => async (texts: string[]) => {
    const unique = [...new Set(texts)]
    if (unique.length === 0) return new Map<string, number[]>()
    const vectors = await ask(embed, unique)
    requireVectors(vectors, unique.length, dims)
    return new Map(unique.map((text, i) => [text, vectors[i] as number[]]))
  }
  return { dims, embed: make(documents), embedQueries: make(queries) }
}

async function ask(embed: EmbedFunction, texts: string[]): Promise<number[][]> {
  try {
    return await embed(texts)
  } catch (cause) {
    if (cause instanceof ThreadbaseError) throw cause
    const reason = cause instanceof Error ? cause.message : String(cause)
    throw new ThreadbaseError('unavailable', `index.embeddings failed: ${reason}`, undefined, { cause })
  }
}

function requireVectors(vectors: unknown, count: number, dims: number): asserts vectors is number[][] {
  if (!Array.isArray(vectors) || vectors.length !== count)
    throw invalid(`index.embeddings gave no vector for each of ${count} texts`, 'index.embeddings')
  for (const vector of vectors as ArrayLike<unknown>[]) {
    if (vector?.length !== dims) {
      const length = vector?.length ?? 'no'
      throw invalid(
        `index.embeddings gave a vector of ${length} numbers; index.dims is ${dims}`,
        'index.dims',
      )
    }
    for (let i = 0; i < dims; i++) {
      // what float4 holds
      if (!Number.isFinite(Math.fround(vector[i] as number)))
        throw invalid('index.embeddings gave a vector with what is not a number', 'index.embeddings')
    }
  }
}
