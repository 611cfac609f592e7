import { sql } from 'kysely'
import { type Db, t } from '../../db/schema.ts'

/**
 * Says that somebody is about to name these bytes: the collector leaves them alone for its grace period. The privileged
 * handle: rows of users are named with theirs.
 * @returns whether they are being removed at this moment: then putting them must wait
 */
export async function touchBlob(
  db: Db,
  { sha256, size }: { sha256: string; size: number },
): Promise<boolean> {
  const { rows } = await sql<{ removing: boolean }>`
    /* blobs.touch */
    select ${t.touchBlob}(${sha256}, ${size}::bigint) as removing`.execute(db)
  return rows[0]?.removing === true
}

/** Whether a row of the user, and whether one of anybody else, names the bytes. */
export async function whoNames(
  db: Db,
  userId: string,
  sha256: string,
): Promise<{ own: boolean; others: boolean }> {
  const { rows } = await sql<{ own: boolean; others: boolean }>`
    /* blobs.named_by */
    with named as (
      select user_id = ${userId} as own from ${t.artifacts} where sha256 = ${sha256}
      union all
      select user_id = ${userId} from ${t.files} where sha256 = ${sha256}
    )
    select coalesce(bool_or(own), false) as own, coalesce(bool_or(not own), false) as others from named`.execute(
    db,
  )
  return rows[0] ?? { own: false, others: false }
}
