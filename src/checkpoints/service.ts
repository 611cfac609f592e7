export type { EncryptionOptions } from './codec.ts'
export { type SaverOptions, ThreadbaseSaver } from './saver.ts'
export type { PruneOptions, Removed, StateThread } from './upkeep/service.ts'
