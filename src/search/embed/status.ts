import type { VectorSpace } from '../vectors/service.ts'
import * as counts from './models/repo.ts'
import type { EmbeddingParts, EmbeddingState } from './service.ts'

/** Counts of messages and results of sessions. */
export type EmbeddingStatus = {
  state: EmbeddingState
  /** Whose embeddings texts get; null where they are off. */
  model: string | null
  /** What is used, for people. */
  description: string
  /** What embeddings are kept in. */
  space: VectorSpace
  /** No model has come to these. */
  waiting: number
  /** They have an embedding of the model. */
  done: number
  /** The model refuses them. */
  refused: number
  /** There is nothing to embed in them. */
  empty: number
  /** Another model has come to them; they are done again, unless that one came into use later. */
  ofOtherModels: number
  models: ModelStatus[]
}

export type ModelStatus = { model: string; done: number; refused: number; empty: number }

const NONE = { done: 0, refused: 0, empty: 0 }

export async function readStatus(
  { database, vectors, embedder }: EmbeddingParts,
  state: EmbeddingState,
): Promise<EmbeddingStatus> {
  vectors.forget()
  const space = await vectors.space()
  const counted = database.engine === 'none' ? [] : await counts.countByModel(database.db, space.available)
  // without the columns nothing is done, whatever rows say of it
  const rows = space.available ? counted : counted.map((row) => ({ ...row, model: null }))
  const models = rows.flatMap((row) => (row.model === null ? [] : [toModel(row.model, row)]))
  const { done, refused, empty } = models.find(({ model }) => model === embedder?.model) ?? NONE
  const others = rows.filter(({ model }) => model !== null && model !== embedder?.model)
  return {
    state,
    model: embedder?.model ?? null,
    description: embedder?.description ?? 'none',
    space,
    waiting: rows.reduce((sum, row) => sum + (row.model === null ? row.rows : 0), 0),
    ...{ done, refused, empty },
    ofOtherModels: others.reduce((sum, { rows: count }) => sum + count, 0),
    models,
  }
}

function toModel(model: string, { rows, vectors, refused }: counts.ModelRow): ModelStatus {
  return { model, done: vectors, refused, empty: rows - vectors - refused }
}
