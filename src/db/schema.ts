import type { ColumnType, Generated, GeneratedAlways, Kysely, Transaction } from 'kysely'
import { sql } from 'kysely'

/** What a `json`/`jsonb` column holds: any JSON value when read, its text (see core/json.ts) when written. */
type Json<Read = unknown> = ColumnType<Read, string, string>
type JsonObject = ColumnType<Record<string, unknown>, string | undefined, string>
type Timestamp = ColumnType<Date, string | Date | undefined, string | Date>
type NullableTimestamp = ColumnType<Date | null, string | Date | null | undefined, string | Date | null>

export type ThreadsTable = {
  user_id: string
  id: string
  title: string | null
  kind: Generated<string>
  meta: JsonObject
  last_seq: Generated<number>
  forked_from: string | null
  digest: Buffer | null
  created_at: Timestamp
  updated_at: Timestamp
  archived_at: NullableTimestamp
  ended_at: NullableTimestamp
}

export type MessagesTable = {
  user_id: string
  thread_id: string
  seq: number
  id: string
  message_id: string | null
  parent_seq: number | null
  role: string
  content: Json
  text: string | null
  tool_name: string | null
  tool_input: Json | null
  tool_output: Json | null
  meta: JsonObject
  digest: Buffer
  created_at: Timestamp
  /** Made by a trigger. */
  words: string | null
  /** Null while nothing came to it. */
  embedding_model: string | null
}

export type ConfigsTable = {
  user_id: string
  thread_id: string
  model: string | null
  temperature: number | null
  system_prompt: string | null
  context_window: number | null
  settings: JsonObject
}

export type UsersTable = {
  id: string
  provider: string
  username: string | null
  email: string | null
  name: string | null
  profile_image: string | null
  password_hash: string | null
  is_active: Generated<boolean>
  is_superuser: Generated<boolean>
  created_at: Timestamp
  updated_at: Timestamp
  last_login_at: NullableTimestamp
}

export type ApiKeysTable = {
  user_id: string
  id: string
  name: string
  prefix: string
  key_hash: Buffer
  scopes: string[]
  expires_at: NullableTimestamp
  revoked_at: NullableTimestamp
  last_used_at: NullableTimestamp
  total_uses: Generated<number>
  created_at: Timestamp
}

export type SessionsTable = {
  user_id: string
  id: string
  generation: Generated<number>
  created_at: Timestamp
  refreshed_at: Timestamp
  expires_at: Timestamp
  revoked_at: NullableTimestamp
}

export type AuditLogTable = {
  user_id: string
  id: string
  at: Timestamp
  actor_id: string
  via: string
  action: string
  target: string | null
  address: string | null
  request_id: string | null
}

export type CheckpointsTable = {
  user_id: string
  thread_id: string
  checkpoint_ns: string
  checkpoint_id: string
  parent_id: string | null
  v: number
  hidden: Generated<boolean>
  channels: string[]
  roots: (string | null)[]
  metadata: Json
  /** Of the metadata. */
  run_id: GeneratedAlways<string | null>
  codec: number
  key_id: string | null
  record: Buffer
  created_at: Timestamp
}

export type CheckpointBlobsTable = {
  user_id: string
  thread_id: string
  hash: string
  type: string | null
  codec: number
  key_id: string | null
  data: Buffer | null
  refs: string[] | null
}

export type CheckpointWritesTable = {
  user_id: string
  thread_id: string
  checkpoint_ns: string
  checkpoint_id: string
  task_id: string
  idx: number
  task_path: string
  channel: string
  type: string
  codec: number
  key_id: string | null
  data: Buffer
}

export type CheckpointTombstonesTable = {
  user_id: string
  thread_id: string
  deleted_through: string
  deleted_at: Timestamp
}

export type StoreTable = {
  user_id: string
  path: string
  key: string
  namespace: string[]
  value: Json<Record<string, unknown>>
  words: string | null
  ttl_s: number | null
  expires_at: NullableTimestamp
  created_at: Timestamp
  updated_at: Timestamp
}

export type StoreVectorsTable = {
  user_id: string
  path: string
  key: string
  n: number
  dims: number
  embedding: number[]
}

export type BlobsTable = {
  sha256: string
  size: number
  created_at: Timestamp
  touched_at: Timestamp
}

export type BlobRemovalsTable = {
  sha256: string
  collector: string
  until: Timestamp
}

export type ArtifactsTable = {
  user_id: string
  id: string
  thread_id: string
  sha256: string
  filename: string
  mime: string
  size: number
  session_id: string | null
  run_id: string | null
  tool_call_id: string | null
  meta: JsonObject
  created_at: Timestamp
}

export type FilesTable = {
  user_id: string
  id: string
  name: string
  asked_name: string
  n: Generated<number>
  sha256: string
  mime: string
  size: number
  flow_id: string | null
  expires_at: NullableTimestamp
  meta: JsonObject
  created_at: Timestamp
}

export type UploadsTable = {
  user_id: string
  id: string
  thread_id: string | null
  object_key: string
  sha256: string
  size: number
  entry: Json<Record<string, unknown>>
  proven_at: NullableTimestamp
  expires_at: Timestamp
  created_at: Timestamp
}

export type UserApiKeysTable = {
  user_id: string
  provider: string
  token: string
  key_id: string | null
  created_at: Timestamp
  updated_at: Timestamp
}

export type VariablesTable = {
  user_id: string
  id: Generated<string>
  name: string
  type: string
  token: string
  key_id: string | null
  default_fields: Generated<string[]>
  created_at: Timestamp
  updated_at: Timestamp
}

export type CouncilTurnsTable = {
  user_id: string
  thread_id: string
  holder: string
  lease_until: Timestamp
  state: Json | null
  updated_at: Timestamp
}

export type UsageTable = {
  user_id: string
  tier: Generated<string>
  daily_used: Generated<number>
  daily_limit: number | null
  monthly_used: Generated<number>
  monthly_limit: number | null
  total_queries: Generated<number>
  last_reset_daily: ColumnType<string, string | undefined, string>
  last_reset_monthly: ColumnType<string, string | undefined, string>
  file: Json | null
  created_at: Timestamp
  updated_at: Timestamp
}

export type EmbeddingClaimsTable = {
  user_id: string
  id: string
  holder: string
  until: Timestamp
}

export type EmbeddingModelsTable = {
  model: string
  chosen_at: Timestamp
  lost: Generated<boolean>
}

export type ChainAnalysisResultsTable = {
  user_id: string
  session_id: string
  vulnerabilities: Json<unknown[]>
  chain_links: Json<unknown[]>
  problem_behavior: string | null
  prompting_event: string | null
  consequences: string | null
  solutions: Json<unknown[]>
  summary: string | null
  version: Generated<number>
  text: string
  /** Made by a trigger. */
  words: string | null
  embedding_model: string | null
  created_at: Timestamp
  updated_at: Timestamp
}

export type ChainAnalysisVersionsTable = {
  user_id: string
  session_id: string
  version: number
  /** Null where the result was deleted. */
  result: ColumnType<Record<string, unknown> | null, string | null, string | null>
  written_at: Timestamp
  replaced_at: Timestamp
}

export type ErasedUsersTable = {
  user_id: string
  erased_at: Timestamp
  finished_at: NullableTimestamp
}

export type SearchLanguagesTable = {
  language: string
  chosen_at: Timestamp
}

export type RevisionsTable = {
  revision: string
  name: string
  checksum: string
  applied_at: Timestamp
}

export type Schema = {
  threads: ThreadsTable
  messages: MessagesTable
  configs: ConfigsTable
  users: UsersTable
  api_keys: ApiKeysTable
  sessions: SessionsTable
  audit_log: AuditLogTable
  checkpoints: CheckpointsTable
  checkpoint_blobs: CheckpointBlobsTable
  checkpoint_writes: CheckpointWritesTable
  checkpoint_tombstones: CheckpointTombstonesTable
  store: StoreTable
  store_vectors: StoreVectorsTable
  blobs: BlobsTable
  blob_removals: BlobRemovalsTable
  artifacts: ArtifactsTable
  files: FilesTable
  uploads: UploadsTable
  user_api_keys: UserApiKeysTable
  variables: VariablesTable
  council_turns: CouncilTurnsTable
  usage: UsageTable
  embedding_claims: EmbeddingClaimsTable
  embedding_models: EmbeddingModelsTable
  chain_analysis_results: ChainAnalysisResultsTable
  chain_analysis_versions: ChainAnalysisVersionsTable
  erased_users: ErasedUsersTable
  search_languages: SearchLanguagesTable
  schema_revisions: RevisionsTable
}

/** What every repository function takes first: the database, or a transaction of it. */
export type Db = Kysely<Schema> | Transaction<Schema>

/** Names that live in Threadbase's own schema; the connection adds the schema's name to each of them. */
export const SCHEMA_OBJECTS: ReadonlySet<string> = new Set([
  'threads',
  'messages',
  'configs',
  'users',
  'api_keys',
  'sessions',
  'audit_log',
  'checkpoints',
  'checkpoint_blobs',
  'checkpoint_writes',
  'checkpoint_tombstones',
  'checkpoint_lock_key',
  'checkpoint_parts',
  'delete_checkpoint_thread',
  'put_checkpoint',
  'put_checkpoint_writes',
  'store',
  'store_vectors',
  'put_store_items',
  'store_distance',
  'blobs',
  'blob_removals',
  'touch_blob',
  'artifacts',
  'files',
  'uploads',
  'user_api_keys',
  'variables',
  'council_turns',
  'usage',
  'search_language',
  'search_languages',
  'words_of',
  'message_text',
  'embedding_claims',
  'embedding_models',
  'chain_analysis_results',
  'chain_analysis_versions',
  'erased_users',
  'schema_revisions',
  'append_messages',
])

/** Table names for `sql` templates, completed with the configured schema like those of the query builder. */
export const t = {
  threads: sql.table('threads'),
  messages: sql.table('messages'),
  configs: sql.table('configs'),
  users: sql.table('users'),
  apiKeys: sql.table('api_keys'),
  sessions: sql.table('sessions'),
  auditLog: sql.table('audit_log'),
  checkpoints: sql.table('checkpoints'),
  checkpointBlobs: sql.table('checkpoint_blobs'),
  checkpointWrites: sql.table('checkpoint_writes'),
  checkpointTombstones: sql.table('checkpoint_tombstones'),
  checkpointParts: sql.table('checkpoint_parts'),
  checkpointLockKey: sql.table('checkpoint_lock_key'),
  deleteCheckpointThread: sql.table('delete_checkpoint_thread'),
  putCheckpoint: sql.table('put_checkpoint'),
  putCheckpointWrites: sql.table('put_checkpoint_writes'),
  store: sql.table('store'),
  storeVectors: sql.table('store_vectors'),
  putStoreItems: sql.table('put_store_items'),
  storeDistance: sql.table('store_distance'),
  blobs: sql.table('blobs'),
  blobRemovals: sql.table('blob_removals'),
  touchBlob: sql.table('touch_blob'),
  artifacts: sql.table('artifacts'),
  files: sql.table('files'),
  uploads: sql.table('uploads'),
  userApiKeys: sql.table('user_api_keys'),
  variables: sql.table('variables'),
  councilTurns: sql.table('council_turns'),
  usage: sql.table('usage'),
  searchLanguage: sql.table('search_language'),
  searchLanguages: sql.table('search_languages'),
  wordsOf: sql.table('words_of'),
  messageText: sql.table('message_text'),
  embeddingClaims: sql.table('embedding_claims'),
  embeddingModels: sql.table('embedding_models'),
  chainAnalysisResults: sql.table('chain_analysis_results'),
  chainAnalysisVersions: sql.table('chain_analysis_versions'),
  erasedUsers: sql.table('erased_users'),
  appendMessages: sql.table('append_messages'),
}
