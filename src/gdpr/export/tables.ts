import type { Schema } from '../../db/schema.ts'

type Type = 'text' | 'uuid' | 'integer' | 'bigint'

/** How the rows of a table become lines of a file. */
export type ExportedTable = {
  readonly file: string
  readonly table: keyof Schema
  /** By which rows are paged: the primary key behind the user's id. */
  readonly key: readonly (readonly [name: string, type: Type])[]
  /** What is read of a row. */
  readonly columns: readonly string[]
  /** Columns that may be large: a page ends when they are some megabytes. */
  readonly large?: readonly string[]
}

const THREAD = ['thread_id', 'text'] as const
const CHECKPOINT = [THREAD, ['checkpoint_ns', 'text'], ['checkpoint_id', 'text']] as const
const STORED = ['codec', 'key_id', 'data'] as const

const plain = (
  table: keyof Schema,
  key: ExportedTable['key'],
  columns: readonly string[],
  large?: readonly string[],
  file = `${table}.jsonl`,
): ExportedTable => ({ file, table, key, columns, large })

const byId = [['id', 'uuid']] as const
const bySession = [['session_id', 'uuid']] as const

/** What is exported row by row, in this order. What else there is of a user comes from elsewhere, or is left out. */
export const EXPORTED = {
  threads: plain(
    'threads',
    byId,
    [
      ...['id', 'title', 'kind', 'meta', 'last_seq', 'forked_from'],
      ...['created_at', 'updated_at', 'archived_at', 'ended_at'],
    ],
    ['meta'],
  ),
  messages: plain(
    'messages',
    [
      ['thread_id', 'uuid'],
      ['seq', 'bigint'],
    ],
    [
      ...['thread_id', 'seq', 'id', 'message_id', 'parent_seq', 'role', 'content', 'text'],
      ...['tool_name', 'tool_input', 'tool_output', 'meta', 'created_at'],
    ],
    ['content', 'text', 'tool_input', 'tool_output', 'meta'],
  ),
  configs: plain(
    'configs',
    [['thread_id', 'uuid']],
    ['thread_id', 'model', 'temperature', 'system_prompt', 'context_window', 'settings'],
    ['system_prompt', 'settings'],
  ),
  analyses: plain(
    'chain_analysis_results',
    bySession,
    [
      ...['session_id', 'vulnerabilities', 'chain_links', 'problem_behavior', 'prompting_event'],
      ...['consequences', 'solutions', 'summary', 'version', 'created_at', 'updated_at'],
    ],
    ['vulnerabilities', 'chain_links', 'solutions', 'text'],
    'analyses.jsonl',
  ),
  analysisVersions: plain(
    'chain_analysis_versions',
    [...bySession, ['version', 'integer']],
    ['session_id', 'version', 'result', 'written_at', 'replaced_at'],
    ['result'],
    'analysis_versions.jsonl',
  ),
  councilTurns: plain(
    'council_turns',
    [['thread_id', 'uuid']],
    ['thread_id', 'state', 'lease_until', 'updated_at'],
    ['state'],
  ),
  checkpoints: plain(
    'checkpoints',
    CHECKPOINT,
    [
      ...['thread_id', 'checkpoint_ns', 'checkpoint_id', 'parent_id', 'hidden', 'roots', 'metadata'],
      ...['codec', 'key_id', 'record', 'created_at'],
    ],
    ['record', 'metadata'],
  ),
  checkpointValues: plain(
    'checkpoint_blobs',
    [THREAD, ['hash', 'uuid']],
    ['thread_id', 'hash', 'type', ...STORED, 'refs'],
    ['data', 'refs'],
    'checkpoint_values.jsonl',
  ),
  checkpointWrites: plain(
    'checkpoint_writes',
    [...CHECKPOINT, ['task_id', 'text'], ['idx', 'integer']],
    [
      ...['thread_id', 'checkpoint_ns', 'checkpoint_id', 'task_id', 'idx', 'task_path', 'channel', 'type'],
      ...STORED,
    ],
    ['data'],
  ),
  store: plain(
    'store',
    [
      ['path', 'text'],
      ['key', 'text'],
    ],
    ['namespace', 'key', 'value', 'ttl_s', 'expires_at', 'created_at', 'updated_at'],
    ['value'],
  ),
  artifacts: plain(
    'artifacts',
    byId,
    [
      ...['id', 'thread_id', 'filename', 'mime', 'size', 'sha256', 'session_id', 'run_id', 'tool_call_id'],
      ...['meta', 'created_at'],
    ],
    ['meta'],
  ),
  files: plain(
    'files',
    byId,
    ['id', 'name', 'mime', 'size', 'sha256', 'flow_id', 'expires_at', 'meta', 'created_at'],
    ['meta'],
  ),
  uploads: plain(
    'uploads',
    byId,
    ['id', 'thread_id', 'sha256', 'size', 'entry', 'proven_at', 'expires_at', 'created_at'],
    ['entry'],
  ),
  usage: plain(
    'usage',
    [],
    [
      ...['tier', 'daily_used', 'daily_limit', 'monthly_used', 'monthly_limit', 'total_queries'],
      ...['last_reset_daily', 'last_reset_monthly', 'file', 'created_at', 'updated_at'],
    ],
  ),
  sessions: plain('sessions', byId, ['id', 'created_at', 'refreshed_at', 'expires_at', 'revoked_at']),
  apiKeys: plain('api_keys', byId, [
    ...['id', 'name', 'prefix', 'scopes', 'created_at', 'expires_at', 'revoked_at'],
    ...['last_used_at', 'total_uses'],
  ]),
  auditLog: plain('audit_log', byId, [
    ...['id', 'at', 'actor_id', 'via', 'action', 'target', 'address', 'request_id'],
  ]),
} as const

/** What is exported of secrets that nothing can be decrypted of. */
export const SECRETS = {
  providerKeys: plain(
    'user_api_keys',
    [['provider', 'text']],
    ['provider', 'key_id', 'created_at', 'updated_at'],
  ),
  variables: plain('variables', byId, [
    ...['id', 'name', 'type', 'key_id', 'default_fields', 'created_at', 'updated_at'],
  ]),
} as const

/** Tables that are exported in another way: the account as one document, secrets masked. */
export const EXPORTED_OTHERWISE: readonly (keyof Schema)[] = ['users', 'user_api_keys', 'variables']

/** Tables that are left out, and why, for the manifest. */
export const LEFT_OUT = {
  store_vectors: 'made from the texts of the store; it can be made again',
  checkpoint_tombstones: 'says for a while which state was deleted, so that late writes leave nothing behind',
  embedding_claims: 'says which process is at work on which row',
  erased_users: 'has a row only of users whose data was erased',
} as const satisfies Partial<Record<keyof Schema, string>>

/** What is left out of rows that are exported, for the manifest. */
export const COLUMNS_LEFT_OUT = {
  'messages and analyses: words, embeddings': 'made from their texts; they can be made again',
  'account: the hash of the password': 'a secret',
  'api_keys: the hash of the key': 'a secret',
  'provider_keys and variables of type credential: the value': 'a secret; its mask is there',
} as const
