/** How many numbers a vector has; `messages.embedding` is `vector(384)`. */
export const DIMENSIONS = 384

/** The embeddings port: a model that gives texts their places in one space. */
export type Embedder = {
  /** Kept with each vector, at most 255 characters. Vectors of one name can be compared with each other. */
  readonly model: string
  /** What is used, for people; never a credential. */
  readonly description: string
  /** How many texts it takes at a time with profit. */
  readonly batchSize: number
  /** Whether it computes on this machine, and so takes from other work what it needs. Default false. */
  readonly local?: boolean
  /**
   * A vector of {@link DIMENSIONS} numbers and length 1 for each text, in order. A text that is longer than the model
   * reads is cut.
   * @param options.urgent somebody waits: comes before calls that are not
   * @throws unavailable when the model does not answer (`details.retryAfterS`, if it said when it will), or answers with
   *   vectors of another length: no text is to blame. invalid_input when it refuses the texts, one of which may be the
   *   reason; if there was one only, it is, for the model takes others
   */
  embed(texts: readonly string[], options?: EmbedOptions): Promise<Float32Array[]>
  /** What is under way fails as unavailable. */
  close(): Promise<void>
}

export type EmbedOptions = { urgent?: boolean; signal?: AbortSignal }
