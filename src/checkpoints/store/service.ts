import type { Logger } from '../../core/log.ts'
import { userOf } from '../../core/scope.ts'
import { createShared, type StoreDatabase } from './shared.ts'
import { type StoreOptions, ThreadbaseStore } from './store.ts'

export {
  createDocumentService,
  type DocumentChoice,
  type DocumentFilter,
  type DocumentQuery,
  type DocumentService,
  type FoundDocument,
  type NewDocument,
} from './documents.ts'
export type { EmbeddingsLike, EmbedFunction, StoreIndex } from './embedding.ts'
export type { StorePut } from './operations.ts'
export type { StoreTtl } from './shared.ts'
export { type StoreCall, type StoreOptions, ThreadbaseStore } from './store.ts'

export type StoreServiceOptions = Omit<StoreOptions, 'userId' | 'log'>
export type StoreService = ReturnType<typeof createStoreService>

/** The stores of one Threadbase. @throws invalid_input that names the option */
export function createStoreService(database: StoreDatabase, options: StoreServiceOptions, log: Logger) {
  const shared = createShared(database, { ...options, log })
  return {
    /** For any user: the call says which, or the run that it is made in. */
    forAll: new ThreadbaseStore(database, options, shared),
    /** For one, whatever else is said. @throws invalid_input */
    forUser: (userId: string) =>
      new ThreadbaseStore(database, { ...options, userId: userOf({ userId }) }, shared),
  }
}
