import type { Schema } from '../../db/schema.ts'

type ErasedTable = {
  readonly name: keyof Schema
  /** The primary key behind the user's id. */
  readonly key: readonly (readonly [name: string, type: 'text' | 'uuid' | 'integer' | 'bigint'])[]
}

/** Where the user's id is not in `user_id`. */
export const USER_COLUMN: Partial<Record<keyof Schema, string>> = { users: 'id' }

const THREAD = ['thread_id', 'text'] as const
const CHECKPOINT = [THREAD, ['checkpoint_ns', 'text'], ['checkpoint_id', 'text']] as const

/**
 * Tables whose rows of a user are deleted by themselves, in this order: what hangs on another row comes before it, so that
 * no statement deletes more than a batch. The users' own rows come last: as long as they are there, an erasure that was
 * killed is seen to be unfinished. A test holds this list against the catalog.
 */
export const ERASED_TABLES: readonly ErasedTable[] = [
  { name: 'embedding_claims', key: [['id', 'uuid']] },
  {
    name: 'chain_analysis_versions',
    key: [
      ['session_id', 'uuid'],
      ['version', 'integer'],
    ],
  },
  { name: 'chain_analysis_results', key: [['session_id', 'uuid']] },
  { name: 'council_turns', key: [['thread_id', 'uuid']] },
  {
    name: 'messages',
    key: [
      ['thread_id', 'uuid'],
      ['seq', 'bigint'],
    ],
  },
  { name: 'configs', key: [['thread_id', 'uuid']] },
  { name: 'threads', key: [['id', 'uuid']] },
  { name: 'checkpoint_writes', key: [...CHECKPOINT, ['task_id', 'text'], ['idx', 'integer']] },
  { name: 'checkpoints', key: CHECKPOINT },
  { name: 'checkpoint_blobs', key: [THREAD, ['hash', 'uuid']] },
  { name: 'checkpoint_tombstones', key: [THREAD] },
  {
    name: 'store_vectors',
    key: [
      ['path', 'text'],
      ['key', 'text'],
      ['n', 'integer'],
    ],
  },
  {
    name: 'store',
    key: [
      ['path', 'text'],
      ['key', 'text'],
    ],
  },
  { name: 'user_api_keys', key: [['provider', 'text']] },
  { name: 'variables', key: [['id', 'uuid']] },
  { name: 'usage', key: [] },
  { name: 'sessions', key: [['id', 'uuid']] },
  { name: 'api_keys', key: [['id', 'uuid']] },
  { name: 'users', key: [] },
]

/** Deleted together with the bytes that their rows name, before the others: threads would take them along. */
export const TABLES_OF_BYTES = ['artifacts', 'files', 'uploads'] as const

/** What stays of an erased user: that it was done, and who did what. */
export const KEPT_TABLES: readonly (keyof Schema)[] = ['audit_log', 'erased_users']
