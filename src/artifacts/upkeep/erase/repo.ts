import { sql } from 'kysely'
import { textArray } from '../../../db/arrays.ts'
import { type Db, t } from '../../../db/schema.ts'
import type { BlobRow } from '../repo.ts'

/** Bytes that a row of the user named, and until when whoever stored them may have been this user. */
export type Released = { sha256: string; until: Date }

const TABLES = { artifacts: t.artifacts, files: t.files }
export type NamingTable = keyof typeof TABLES
export const NAMING_TABLES = Object.keys(TABLES) as NamingTable[]

/** Deletes the user's next rows that name bytes, in order of their id. @returns one for each row */
export async function deleteNames(
  tx: Db,
  table: NamingTable,
  userId: string,
  limit: number,
): Promise<Released[]> {
  const { rows } = await sql<Released>`
    /* erase.names */
    with batch as (
      select id from ${TABLES[table]} where user_id = ${userId} order by id limit ${limit}::int for update
    )
    delete from ${TABLES[table]} x using batch where x.user_id = ${userId} and x.id = batch.id
    returning x.sha256, x.created_at as until`.execute(tx)
  return rows
}

/**
 * Rows of these bytes that nobody names any more and nobody but the user stored, locked to the end of the transaction.
 * What somebody touched later may be about to get a name.
 */
export async function lockReleased(tx: Db, released: Released[]): Promise<BlobRow[]> {
  const { rows } = await sql<BlobRow>`
    /* erase.lock_bytes */
    select b.sha256, b.size from ${t.blobs} b
     where exists (select from unnest(${textArray(released.map(({ sha256 }) => sha256))}::text[],
                                      ${released.map(({ until }) => until.toISOString())}::timestamptz[])
                               as i (sha256, until)
                    where i.sha256 = b.sha256 and b.touched_at <= i.until)
       and b.sha256 = any(${textArray(released.map(({ sha256 }) => sha256))}::text[])
       and not exists (select from ${t.artifacts} where sha256 >= b.sha256 and sha256 <= b.sha256)
       and not exists (select from ${t.files} where sha256 >= b.sha256 and sha256 <= b.sha256)
     order by b.sha256 for update of b`.execute(tx)
  return rows
}

/** Of these bytes, how many nobody names: those that stay for the collector. */
export async function countUnnamed(db: Db, hashes: string[]): Promise<number> {
  const { rows } = await sql<{ count: number }>`
    /* erase.count_unnamed */
    select count(*) as count from ${t.blobs} b
     where b.sha256 = any(${textArray(hashes)}::text[])
       and not exists (select from ${t.artifacts} where sha256 >= b.sha256 and sha256 <= b.sha256)
       and not exists (select from ${t.files} where sha256 >= b.sha256 and sha256 <= b.sha256)`.execute(db)
  return Number(rows[0]?.count ?? 0)
}

/** What a removal under this name was asked to remove and has not noted the end of. */
export async function listRemovals(db: Db, collector: string): Promise<string[]> {
  const { rows } = await sql<{ sha256: string }>`
    /* erase.removals */
    select sha256 from ${t.blobRemovals} where collector = ${collector}::uuid order by sha256`.execute(db)
  return rows.map(({ sha256 }) => sha256)
}

/** Ends those of its notes that count for nobody any more. */
export async function deleteEndedRemovals(db: Db, collector: string): Promise<void> {
  await sql`
    /* erase.ended_removals */
    delete from ${t.blobRemovals} where collector = ${collector}::uuid and until <= clock_timestamp()`.execute(
    db,
  )
}

export type PendingObject = { id: string; objectKey: string; released: Released }

// from the proof that the bytes are there to their being in place
const PLACED_WITHIN = sql`interval '1 minute'`

/** The user's next uploads, in order of their id. */
export async function listUploads(db: Db, userId: string, limit: number): Promise<PendingObject[]> {
  const { rows } = await sql<{ id: string; object_key: string; sha256: string; until: Date }>`
    /* erase.uploads */
    select id, object_key, sha256, coalesce(proven_at + ${PLACED_WITHIN}, created_at) as until
      from ${t.uploads} where user_id = ${userId} order by id limit ${limit}::int`.execute(db)
  return rows.map(({ id, object_key, sha256, until }) => ({
    ...{ id, objectKey: object_key },
    released: { sha256, until },
  }))
}

export async function deleteUploads(tx: Db, userId: string, ids: string[]): Promise<void> {
  await sql`
    /* erase.delete_uploads */
    delete from ${t.uploads} where user_id = ${userId} and id = any(${textArray(ids)}::text[]::uuid[])`.execute(
    tx,
  )
}

/** How many different bytes the user's rows name, how many of them nobody else does, and how large those are. */
export async function countBytes(
  db: Db,
  userId: string,
): Promise<{ blobs: number; unshared: number; unsharedBytes: number }> {
  const others = (table: typeof t.artifacts) =>
    sql`exists (select from ${table} where sha256 >= b.sha256 and sha256 <= b.sha256 and user_id <> ${userId})`
  const { rows } = await sql<Record<'blobs' | 'unshared' | 'bytes', number>>`
    /* erase.count_bytes */
    with own as (
      select sha256 from ${t.artifacts} where user_id = ${userId}
       union select sha256 from ${t.files} where user_id = ${userId}
    ), named as (
      select b.size, ${others(t.artifacts)} or ${others(t.files)} as shared
        from own join ${t.blobs} b on b.sha256 = own.sha256
    )
    select count(*) as blobs, count(*) filter (where not shared) as unshared,
           coalesce(sum(size) filter (where not shared), 0)::bigint as bytes from named`.execute(db)
  const { blobs = 0, unshared = 0, bytes = 0 } = rows[0] ?? {}
  return { blobs: Number(blobs), unshared: Number(unshared), unsharedBytes: Number(bytes) }
}
