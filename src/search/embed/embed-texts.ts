import { isThreadbaseError, ThreadbaseError } from '../../core/errors.ts'
import { DIMENSIONS, type Embedder, type EmbedOptions } from '../../embeddings/embedder.ts'

/** A vector for each text, in order; null for one in which there is nothing to embed, or that the model refuses. */
export type Embedding = Float32Array | null

/**
 * Embeds texts, empty ones apart. When the model refuses them, halves of them are tried, until it is clear which.
 * @param onRefused told of the place of a text that the model refuses, or makes nothing of, and why
 * @throws unavailable
 */
export async function embedTexts(
  embedder: Pick<Embedder, 'embed'>,
  texts: readonly string[],
  options: EmbedOptions,
  onRefused: (place: number, reason: string) => void,
): Promise<Embedding[]> {
  const embeddings = new Array<Embedding>(texts.length).fill(null)
  const places = [...texts.keys()].filter((place) => texts[place]?.trim() !== '')
  const tryOut = async (some: number[]): Promise<void> => {
    if (some.length === 0) return
    const answer = await embedOrRefuse(
      embedder,
      some.map((place) => texts[place] as string),
      options,
    )
    if ('vectors' in answer) {
      for (const [i, place] of some.entries()) {
        const vector = answer.vectors[i] as Float32Array
        // it has no direction: nothing is near to it
        if (vector.every((number) => number === 0)) onRefused(place, 'its vector is of zeros')
        else embeddings[place] = vector
      }
    } else if (some.length === 1) {
      onRefused(some[0] as number, answer.refused)
    } else {
      const half = Math.ceil(some.length / 2)
      await tryOut(some.slice(0, half))
      await tryOut(some.slice(half))
    }
  }
  await tryOut(places)
  return embeddings
}

async function embedOrRefuse(
  embedder: Pick<Embedder, 'embed'>,
  texts: string[],
  options: EmbedOptions,
): Promise<{ vectors: Float32Array[] } | { refused: string }> {
  try {
    // an application's own model may give arrays
    const vectors = (await embedder.embed(texts, options)).map((vector) => Float32Array.from(vector ?? []))
    requireVectors(vectors, texts.length)
    return { vectors }
  } catch (error) {
    if (isThreadbaseError(error, 'invalid_input')) return { refused: error.message }
    throw error
  }
}

/** An application's own model may answer anything. @throws unavailable, as no text is to blame */
function requireVectors(vectors: Float32Array[], count: number): void {
  const wrong =
    vectors.length !== count
      ? `${vectors.length} vectors for ${count} texts`
      : vectors.some(({ length }) => length !== DIMENSIONS)
        ? `vectors of ${vectors.find(({ length }) => length !== DIMENSIONS)?.length} numbers instead of ${DIMENSIONS}`
        : vectors.some((vector) => vector.some((number) => !Number.isFinite(number)))
          ? 'vectors of something else than numbers'
          : undefined
  if (wrong !== undefined)
    throw new ThreadbaseError('unavailable', `the embedding model answers with ${wrong}`)
}
