import { sql } from 'kysely'
import { textArray } from '../../db/arrays.ts'
import { type Db, t } from '../../db/schema.ts'

/** Of a row of `blobs`. */
export type BlobRow = { sha256: string; size: number }

// A range, not equality: a lookup in the index for each row is the only plan for it. A join of the whole tables, which the
// planner takes for as cheap, would begin at their first row for each batch: the time of all batches would be quadratic.
const ofBytes = sql`>= b.sha256 and sha256 <= b.sha256`
const namedByArtifact = sql`exists (select from ${t.artifacts} where sha256 ${ofBytes})`
const namedByFile = sql`exists (select from ${t.files} where sha256 ${ofBytes})`
const named = sql`(${namedByArtifact} or ${namedByFile})`
const unnamed = sql`not ${namedByArtifact} and not ${namedByFile}`
// what a run finds that has deleted the files that have expired
const unnamedThen = sql`not ${namedByArtifact}
   and not exists (select from ${t.files}
                    where sha256 ${ofBytes} and (expires_at is null or expires_at > now()))`
const old = (graceS: number) => sql`b.touched_at <= now() - make_interval(secs => ${graceS}::float8)`

/** Rows behind `after`, in order of their hash, that nobody names and nobody touched for `graceS` seconds. */
const orphans = (nobody: typeof unnamed, after: string, graceS: number, limit: number) => sql`
  select b.sha256, b.size from ${t.blobs} b
   where b.sha256 > ${after} and ${old(graceS)} and ${nobody}
   order by b.sha256 limit ${limit}::int`

/** For a dry run: bytes that only files which have expired name count as well. */
export async function listOrphans(db: Db, after: string, graceS: number, limit: number): Promise<BlobRow[]> {
  const { rows } =
    await sql<BlobRow>`/* blobs.orphans */ ${orphans(unnamedThen, after, graceS, limit)}`.execute(db)
  return rows
}

/** The same, locked to the end of the transaction; those that somebody else has locked, to name or to collect, are left out. */
export async function lockOrphans(tx: Db, after: string, graceS: number, limit: number): Promise<BlobRow[]> {
  const { rows } = await sql<BlobRow>`
    /* blobs.lock_orphans */
    ${orphans(unnamed, after, graceS, limit)} for update of b skip locked`.execute(tx)
  return rows
}

/**
 * Removes those of the rows that still nobody names, and notes for so long that their bytes are being removed. A statement
 * of its own sees what was named while the first one waited; behind the lock nobody can name them any more.
 */
export async function takeOrphans(
  tx: Db,
  collector: string,
  hashes: string[],
  leaseS: number,
): Promise<BlobRow[]> {
  const { rows } = await sql<BlobRow>`
    /* blobs.take_orphans */
    with taken as (
      delete from ${t.blobs} b where b.sha256 = any(${textArray(hashes)}::text[]) and ${unnamed}
      returning b.sha256, b.size
    ), noted as (
      insert into ${t.blobRemovals} (sha256, collector, until)
      select sha256, ${collector}::uuid, clock_timestamp() + make_interval(secs => ${leaseS}::float8) from taken
      on conflict (sha256, collector) do update set until = excluded.until
    )
    select * from taken`.execute(tx)
  return rows
}

/** Their bytes are gone: who stores them again need not wait for this collector. */
export async function endRemovals(db: Db, collector: string, hashes: string[]): Promise<void> {
  await sql`
    /* blobs.end_removals */
    delete from ${t.blobRemovals}
     where sha256 = any(${textArray(hashes)}::text[]) and collector = ${collector}::uuid`.execute(db)
}

/** Notes of collectors that died. */
export async function deleteExpiredRemovals(db: Db): Promise<void> {
  await sql`
    /* blobs.expired_removals */
    delete from ${t.blobRemovals} where until <= clock_timestamp()`.execute(db)
}

/** How many rows nobody names and somebody touched within the grace period. */
export async function countYoung(db: Db, graceS: number): Promise<number> {
  const { rows } = await sql<{ count: number }>`
    /* blobs.young */
    select count(*) as count from ${t.blobs} b where not ${old(graceS)} and ${unnamedThen}`.execute(db)
  return Number(rows[0]?.count ?? 0)
}

/** Those of the hashes that have no row, and whose bytes nobody is about to remove. */
export async function findUnknown(db: Db, hashes: string[]): Promise<Set<string>> {
  const { rows } = await sql<{ sha256: string }>`
    /* blobs.unknown */
    select i.sha256 from unnest(${textArray(hashes)}::text[]) as i (sha256)
     where not exists (select from ${t.blobs} b where b.sha256 >= i.sha256 and b.sha256 <= i.sha256)
       and not exists (select from ${t.blobRemovals} r where r.sha256 = i.sha256 and r.until > clock_timestamp())`.execute(
    db,
  )
  return new Set(rows.map(({ sha256 }) => sha256))
}

/** Gives bytes that have no row one, as old as they are, so that the collector finds them. */
export async function insertFound(db: Db, found: (BlobRow & { modifiedAt: Date })[]): Promise<void> {
  await sql`
    /* blobs.found */
    insert into ${t.blobs} (sha256, size, created_at, touched_at)
    select i.sha256, i.size, i.at, i.at
      from unnest(${textArray(found.map(({ sha256 }) => sha256))}::text[],
                  ${found.map(({ size }) => String(size))}::bigint[],
                  ${found.map(({ modifiedAt }) => modifiedAt.toISOString())}::timestamptz[]) as i (sha256, size, at)
     order by i.sha256
    on conflict (sha256) do nothing`.execute(db)
}

/** Deletes up to `limit` files that have expired. @returns how many */
export async function deleteExpiredFiles(db: Db, limit: number): Promise<number> {
  const { numAffectedRows } = await sql`
    /* files.delete_expired */
    delete from ${t.files} where (user_id, id) in (
      select user_id, id from ${t.files} where expires_at <= now() order by expires_at limit ${limit}::int
         for update skip locked)`.execute(db)
  return Number(numAffectedRows ?? 0n)
}

/** Deletes up to `limit` uploads whose URL ended longer ago than the grace period. @returns how many */
export async function deleteExpiredUploads(db: Db, graceS: number, limit: number): Promise<number> {
  const { numAffectedRows } = await sql`
    /* uploads.delete_expired */
    delete from ${t.uploads} where (user_id, id) in (
      select user_id, id from ${t.uploads} where expires_at <= now() - make_interval(secs => ${graceS}::float8)
       order by expires_at limit ${limit}::int for update skip locked)`.execute(db)
  return Number(numAffectedRows ?? 0n)
}

export async function countExpired(db: Db, graceS: number): Promise<{ files: number; uploads: number }> {
  const { rows } = await sql<{ files: number; uploads: number }>`
    /* blobs.count_expired */
    select (select count(*) from ${t.files} where expires_at <= now()) as files,
           (select count(*) from ${t.uploads}
             where expires_at <= now() - make_interval(secs => ${graceS}::float8)) as uploads`.execute(db)
  const { files = 0, uploads = 0 } = rows[0] ?? {}
  return { files: Number(files), uploads: Number(uploads) }
}

/** Rows behind `after` that somebody names, in order of their hash. */
export async function listNamed(db: Db, after: string, limit: number): Promise<BlobRow[]> {
  const { rows } = await sql<BlobRow>`
    /* blobs.named */
    select b.sha256, b.size from ${t.blobs} b where b.sha256 > ${after} and ${named}
     order by b.sha256 limit ${limit}::int`.execute(db)
  return rows
}

export async function countBlobs(db: Db): Promise<number> {
  const { rows } = await sql<{ count: number }>`
    /* blobs.count */
    select count(*) as count from ${t.blobs}`.execute(db)
  return Number(rows[0]?.count ?? 0)
}

export type NamedBy = { userId: string; table: 'artifacts' | 'files'; id: string }

/** What names the bytes, `limit` at most. */
export async function listNames(db: Db, sha256: string, limit: number): Promise<NamedBy[]> {
  const { rows } = await sql<{ user_id: string; table: NamedBy['table']; id: string }>`
    /* blobs.names */
    select user_id, 'artifacts' as table, id from ${t.artifacts} where sha256 = ${sha256}
    union all
    select user_id, 'files', id from ${t.files} where sha256 = ${sha256}
    limit ${limit}::int`.execute(db)
  return rows.map(({ user_id, table, id }) => ({ userId: user_id, table, id }))
}

/** When the oldest upload began whose URL may still be good, or just was; undefined when there is none. */
export async function oldestUpload(db: Db): Promise<Date | undefined> {
  const { rows } = await sql<{ at: Date | null }>`
    /* uploads.oldest */
    select min(created_at) as at from ${t.uploads}`.execute(db)
  return rows[0]?.at ?? undefined
}
