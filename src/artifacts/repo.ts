import { type Selectable, sql } from 'kysely'
import { decodeText, encodeJsonb, encodeText } from '../core/json.ts'
import { type ArtifactsTable, type Db, t } from '../db/schema.ts'
import type { Artifact, ArtifactQuery } from './schema.ts'

const columns = [
  'user_id',
  'id',
  'thread_id',
  'sha256',
  'filename',
  'mime',
  'size',
  'session_id',
  'run_id',
  'tool_call_id',
  'meta',
  'created_at',
] as const
const selected = sql.join(columns.map((column) => sql.ref(column)))

type Row = Selectable<ArtifactsTable>

function toArtifact(row: Row): Artifact {
  return {
    id: row.id,
    userId: row.user_id,
    threadId: row.thread_id,
    filename: decodeText(row.filename),
    mime: row.mime,
    size: row.size,
    sha256: row.sha256,
    sessionId: row.session_id,
    runId: row.run_id,
    toolCallId: row.tool_call_id,
    meta: row.meta,
    createdAt: row.created_at,
  }
}

export type ArtifactRow = Omit<Artifact, 'userId' | 'createdAt'>

/** Undefined when the user has an artifact of this id already. The upload of this id, if there is one, ends with it. */
export async function insertArtifact(
  db: Db,
  userId: string,
  artifact: ArtifactRow,
): Promise<Artifact | undefined> {
  const { id, threadId, sha256, filename, mime, size, sessionId, runId, toolCallId, meta } = artifact
  const { rows } = await sql<Row>`
    /* artifacts.create */
    with ended as (delete from ${t.uploads} where user_id = ${userId} and id = ${id}::uuid)
    insert into ${t.artifacts} (user_id, id, thread_id, sha256, filename, mime, size, session_id, run_id, tool_call_id, meta)
    values (${userId}, ${id}::uuid, ${threadId}::uuid, ${sha256}, ${encodeText(filename)}, ${mime}, ${size}::bigint,
            ${sessionId}, ${runId}, ${toolCallId}, ${encodeJsonb(meta)}::jsonb)
    on conflict (user_id, id) do nothing
    returning ${selected}`.execute(db)
  return rows[0] && toArtifact(rows[0])
}

export async function findArtifact(db: Db, userId: string, id: string): Promise<Artifact | undefined> {
  const { rows } = await sql<Row>`
    /* artifacts.get */
    select ${selected} from ${t.artifacts} where user_id = ${userId} and id = ${id}::uuid`.execute(db)
  return rows[0] && toArtifact(rows[0])
}

/** Newest first, `limit` at most, older than `before`. */
export async function listArtifacts(
  db: Db,
  userId: string,
  threadId: string,
  { limit, before, runId, toolCallId }: ArtifactQuery & { limit: number; before: string | undefined },
): Promise<Artifact[]> {
  let select = db
    .selectFrom('artifacts')
    .select(columns)
    .modifyFront(sql`/* artifacts.list */`)
    .where('user_id', '=', userId)
    .where('thread_id', '=', threadId)
  if (runId !== undefined) select = select.where('run_id', '=', runId)
  if (toolCallId !== undefined) select = select.where('tool_call_id', '=', toolCallId)
  if (before !== undefined) select = select.where('id', '<', before)
  return (await select.orderBy('id', 'desc').limit(limit).execute()).map(toArtifact)
}

/** Whether there was one. Its bytes stay until they are collected. */
export async function deleteArtifact(db: Db, userId: string, id: string): Promise<boolean> {
  const { numAffectedRows } = await sql`
    /* artifacts.delete */
    delete from ${t.artifacts} where user_id = ${userId} and id = ${id}::uuid`.execute(db)
  return (numAffectedRows ?? 0n) > 0n
}
