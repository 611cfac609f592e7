import { userOf } from '../core/scope.ts'
import type { Database } from '../db/database.ts'
import { createPlainState } from './plain.ts'
import { type SaverOptions, ThreadbaseSaver } from './saver.ts'
import { createShared } from './shared.ts'

export { type AdoptOptions, type AdoptReport, adoptCheckpoints } from './adopt/service.ts'
export type { EncryptionOptions } from './codec.ts'
export { encryptedCheckpointTables } from './encrypted-tables.ts'
export type { Plain, PlainRecord, PlainState, StoredData } from './plain.ts'
export { type SaverOptions, ThreadbaseSaver } from './saver.ts'
export { listStateUsers, type PruneOptions, type Removed, type StateThread } from './upkeep/service.ts'

export type CheckpointOptions = Omit<SaverOptions, 'userId'>
export type CheckpointService = ReturnType<typeof createCheckpointService>

/** The checkpointers of one Threadbase: what one of them knows to be stored, all of them know. */
export function createCheckpointService(
  database: Pick<Database, 'forUser'>,
  options: CheckpointOptions = {},
) {
  const shared = createShared(options.encryption)
  return {
    /** What is stored, as plain JSON. */
    plain: createPlainState(options.encryption),
    /** What is remembered of a user whose state is gone. */
    forget: shared.forget,
    /** For any user: `configurable.user_id` says which. */
    forAll: new ThreadbaseSaver(database, options, shared),
    /** For one, whatever a config says. @throws invalid_input */
    forUser: (userId: string) =>
      new ThreadbaseSaver(database, { ...options, userId: userOf({ userId }) }, shared),
  }
}
