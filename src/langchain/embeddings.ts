import { Embeddings } from '@langchain/core/embeddings'
import type { Embedder } from '../embeddings/embedder.ts'

/** What gives vectors: `tb.embeddings`. */
export type EmbeddingsSource = Pick<Embedder, 'embed'>

/** The model of Threadbase for LangChain: 384 numbers, length 1. */
export class ThreadbaseEmbeddings extends Embeddings {
  readonly #source: EmbeddingsSource

  constructor(source: EmbeddingsSource) {
    super({})
    this.#source = source
  }

  /** @throws unavailable when the model does not answer; invalid_input when it refuses a text; unsupported without one */
  override async embedDocuments(documents: string[]): Promise<number[][]> {
    return (await this.#source.embed(documents)).map((vector) => Array.from(vector))
  }

  /** Comes before documents that wait. @throws as {@link embedDocuments} */
  override async embedQuery(document: string): Promise<number[]> {
    const [vector] = await this.#source.embed([document], { urgent: true })
    return Array.from(vector ?? [])
  }
}
