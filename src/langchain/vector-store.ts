import { Document, type DocumentInterface } from '@langchain/core/documents'
import type { EmbeddingsInterface } from '@langchain/core/embeddings'
import { maximalMarginalRelevance } from '@langchain/core/utils/math'
import { type MaxMarginalRelevanceSearchOptions, VectorStore } from '@langchain/core/vectorstores'
import type { DocumentFilter, FoundDocument, NewDocument } from '../checkpoints/store/service.ts'
import { ThreadbaseError } from '../core/errors.ts'
import { userOf } from '../core/scope.ts'
import type { Threadbase } from '../threadbase.ts'
import { ThreadbaseEmbeddings } from './embeddings.ts'

export type VectorStoreFields = {
  threadbase: Pick<Threadbase, 'documents' | 'embeddings'>
  userId: string
  /** Documents of one collection are found together. Default `documents`. */
  collection?: string
}

export type DeleteDocuments = {
  ids?: string[]
  filter?: DocumentFilter
  /** Of the collection. */
  deleteAll?: boolean
}

const FETCH_K = 20
const LAMBDA = 0.5

/**
 * Documents of a user, found by meaning. A filter says what must hold of fields of the metadata: values, or operators
 * `$eq`, `$ne`, `$gt`, `$gte`, `$lt`, `$lte`, `$in` and `$nin`. Scores are cosines: 1 is the nearest there is.
 *
 *     const store = new ThreadbaseVectorStore(undefined, { threadbase: tb, userId: 'u1' })
 *     await store.addDocuments([{ pageContent: 'Tea is in the kitchen.', metadata: { room: 'kitchen' } }])
 *     const retriever = store.asRetriever({ k: 4, filter: { room: 'kitchen' } })
 */
export class ThreadbaseVectorStore extends VectorStore {
  declare FilterType: DocumentFilter
  readonly collection: string
  readonly #userId: string
  readonly #documents: VectorStoreFields['threadbase']['documents']

  /**
   * @param embeddings of any length; default: the model of Threadbase. Vectors of a collection are of one model.
   * @throws invalid_input for a user that cannot be
   */
  constructor(embeddings: EmbeddingsInterface | undefined, fields: VectorStoreFields) {
    const { threadbase, userId, collection = 'documents' } = fields
    super(embeddings ?? new ThreadbaseEmbeddings(threadbase.embeddings), { collection })
    this.#userId = userOf({ userId })
    this.#documents = threadbase.documents
    this.collection = collection
  }

  override _vectorstoreType(): string {
    return 'threadbase'
  }

  /**
   * Stores documents. One that has an id replaces the one of this id.
   * @param options.ids before those of the documents
   * @returns their ids @throws invalid_input, unavailable
   */
  override async addDocuments(
    documents: DocumentInterface[],
    options: { ids?: string[] } = {},
  ): Promise<string[]> {
    const vectors = await this.embeddings.embedDocuments(documents.map(({ pageContent }) => pageContent))
    return this.addVectors(vectors, documents, options)
  }

  /** As {@link addDocuments}, with vectors that are there already. */
  override async addVectors(
    vectors: number[][],
    documents: DocumentInterface[],
    { ids }: { ids?: string[] } = {},
  ): Promise<string[]> {
    for (const [name, list] of Object.entries({ vectors, ids: ids ?? documents })) {
      if (list.length !== documents.length)
        throw new ThreadbaseError(
          'invalid_input',
          `there are ${list.length} ${name} for ${documents.length} documents`,
          {
            field: name,
          },
        )
    }
    const rows = documents.map(
      ({ pageContent, metadata, id }, i): NewDocument => ({
        ...{ id: ids?.[i] ?? id, pageContent, metadata, vector: vectors[i] ?? [] },
      }),
    )
    return this.#documents.put({ userId: this.#userId }, this.collection, rows)
  }

  override async similaritySearchVectorWithScore(
    query: number[],
    k: number,
    filter?: this['FilterType'],
  ): Promise<[Document, number][]> {
    const found = await this.#search(query, { limit: k, filter })
    return found.map((document) => [toDocument(document), document.score])
  }

  /** Of the `fetchK` nearest (default 20) those `k` that are near, and far from each other. */
  override async maxMarginalRelevanceSearch(
    query: string,
    { k, fetchK = FETCH_K, lambda = LAMBDA, filter }: MaxMarginalRelevanceSearchOptions<this['FilterType']>,
  ): Promise<Document[]> {
    const vector = await this.embeddings.embedQuery(query)
    const found = await this.#search(vector, { limit: Math.max(k, fetchK), filter, withVectors: true })
    const vectors = found.map((document) => document.vector ?? [])
    const chosen = maximalMarginalRelevance(vector, vectors, lambda, k)
    return chosen.flatMap((place) => found[place] ?? []).map(toDocument)
  }

  /** Removes what one of the options says. @throws invalid_input when none does, or several do */
  override async delete({ ids, filter, deleteAll }: DeleteDocuments = {}): Promise<void> {
    await this.#documents.delete({ userId: this.#userId }, this.collection, { ids, filter, all: deleteAll })
  }

  static override async fromTexts(
    texts: string[],
    metadatas: object[] | object,
    embeddings: EmbeddingsInterface | undefined,
    fields: VectorStoreFields,
  ): Promise<ThreadbaseVectorStore> {
    const documents = texts.map((pageContent, i) => {
      const metadata = Array.isArray(metadatas) ? metadatas[i] : metadatas
      return new Document({ pageContent, metadata: { ...metadata } })
    })
    return ThreadbaseVectorStore.fromDocuments(documents, embeddings, fields)
  }

  static override async fromDocuments(
    documents: DocumentInterface[],
    embeddings: EmbeddingsInterface | undefined,
    fields: VectorStoreFields,
  ): Promise<ThreadbaseVectorStore> {
    const store = new ThreadbaseVectorStore(embeddings, fields)
    await store.addDocuments(documents)
    return store
  }

  #search(vector: number[], query: { limit: number; filter?: DocumentFilter; withVectors?: boolean }) {
    return this.#documents.search({ userId: this.#userId }, this.collection, vector, query)
  }
}

function toDocument({ id, pageContent, metadata }: FoundDocument): Document {
  return new Document({ id, pageContent, metadata })
}
