export type { DocumentFilter } from './checkpoints/store/service.ts'
export { type ErrorCode, isThreadbaseError, ThreadbaseError } from './core/errors.ts'
export { type EmbeddingsSource, ThreadbaseEmbeddings } from './langchain/embeddings.ts'
export { type ChatMessageHistoryFields, ThreadbaseChatMessageHistory } from './langchain/history.ts'
export {
  type DeleteDocuments,
  ThreadbaseVectorStore,
  type VectorStoreFields,
} from './langchain/vector-store.ts'
