import { ThreadbaseError } from '../../core/errors.ts'
import { setNewest } from '../../core/newest.ts'
import { DIMENSIONS, type Embedder } from '../../embeddings/embedder.ts'
import { toReadable } from '../../embeddings/text.ts'

/** Of the queries of this process, for the next pages of each. */
const KEPT = 200

export type QueryVectors = (embedder: Embedder, text: string, signal?: AbortSignal) => Promise<Float32Array>

/** Makes queries into vectors, each once. */
export function createQueryVectors(): QueryVectors {
  const known = new Map<string, Float32Array>()
  return async (embedder, text, signal) => {
    const key = `${embedder.model}\n${text}`
    const vector = known.get(key) ?? (await embed(embedder, text, signal))
    setNewest(known, key, vector, KEPT)
    return vector
  }
}

async function embed(
  embedder: Embedder,
  text: string,
  signal: AbortSignal | undefined,
): Promise<Float32Array> {
  const embedding = embedder.embed([toReadable(text)], { urgent: true, ...(signal && { signal }) })
  const [made] = await (signal === undefined ? embedding : Promise.race([embedding, failWhen(signal)]))
  const vector = made === undefined ? undefined : Float32Array.from(made)
  if (vector?.length !== DIMENSIONS || !vector.every(Number.isFinite))
    throw new ThreadbaseError('unavailable', 'the embedding model gives vectors of another kind')
  return vector
}

/** An application's own model may not look at the signal. */
function failWhen(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    const fail = () =>
      reject(new ThreadbaseError('unavailable', 'the embedding model did not answer in time'))
    if (signal.aborted) fail()
    else signal.addEventListener('abort', fail, { once: true })
  })
}
