import { type Selectable, sql } from 'kysely'
import { encodeJson } from '../../core/json.ts'
import { type Db, t, type UploadsTable } from '../../db/schema.ts'

/** A presigned URL that was given out. `threadId` is null for what becomes a file. */
export type Upload = {
  id: string
  threadId: string | null
  objectKey: string
  sha256: string
  size: number
  /** The fields of the artifact or file. */
  entry: Record<string, unknown>
  /** Whether its bytes were there and were the promised ones. */
  isProven: boolean
  expiresAt: Date
}

export async function insertUpload(db: Db, userId: string, upload: Omit<Upload, 'isProven'>): Promise<void> {
  const { id, threadId, objectKey, sha256, size, entry, expiresAt } = upload
  await sql`
    /* uploads.create */
    insert into ${t.uploads} (user_id, id, thread_id, object_key, sha256, size, entry, expires_at)
    values (${userId}, ${id}::uuid, ${threadId}::uuid, ${objectKey}, ${sha256}, ${size}::bigint,
            ${encodeJson(entry)}::json, ${expiresAt}::timestamptz)`.execute(db)
}

/** Undefined when the user has none of this id and thread (null: for a file). */
export async function findUpload(
  db: Db,
  userId: string,
  threadId: string | null,
  id: string,
): Promise<Upload | undefined> {
  const { rows } = await sql<Selectable<UploadsTable>>`
    /* uploads.get */
    select * from ${t.uploads}
     where user_id = ${userId} and id = ${id}::uuid and thread_id is not distinct from ${threadId}::uuid`.execute(
    db,
  )
  const [row] = rows
  return (
    row && {
      id: row.id,
      threadId: row.thread_id,
      objectKey: row.object_key,
      sha256: row.sha256,
      size: row.size,
      entry: row.entry,
      isProven: row.proven_at !== null,
      expiresAt: row.expires_at,
    }
  )
}

/** Notes that the bytes are the promised ones, before they go to their place. */
export async function proveUpload(db: Db, userId: string, id: string): Promise<void> {
  await sql`
    /* uploads.prove */
    update ${t.uploads} set proven_at = now() where user_id = ${userId} and id = ${id}::uuid`.execute(db)
}
