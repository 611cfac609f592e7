import type { ColumnType, Generated, Kysely, Transaction } from 'kysely'
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
  schema_revisions: RevisionsTable
}

/** What every repository function takes first: the database, or a transaction of it. */
export type Db = Kysely<Schema> | Transaction<Schema>

/** Names that live in Threadbase's own schema; the connection adds the schema's name to each of them. */
export const SCHEMA_OBJECTS: ReadonlySet<string> = new Set([
  'threads',
  'messages',
  'configs',
  'schema_revisions',
  'append_messages',
])

/** Table names for `sql` templates, completed with the configured schema like those of the query builder. */
export const t = {
  threads: sql.table('threads'),
  messages: sql.table('messages'),
  configs: sql.table('configs'),
  appendMessages: sql.table('append_messages'),
}
