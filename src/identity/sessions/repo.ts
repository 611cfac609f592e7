import { sql } from 'kysely'
import { type Db, t } from '../../db/schema.ts'

/**
 * False when the user is not active or has another password by now: the row is locked, so a change of password or
 * status comes either before the session, and refuses it, or after, and finds it.
 */
export async function insertSession(
  db: Db,
  userId: string,
  id: string,
  { passwordHash, ttlS }: { passwordHash: string; ttlS: number },
): Promise<boolean> {
  const { numAffectedRows } = await sql`
    /* sessions.create */
    with account as (
      select id from ${t.users}
       where id = ${userId} and is_active and password_hash = ${passwordHash} for share
    )
    insert into ${t.sessions} (user_id, id, expires_at)
    select id, ${id}::uuid, now() + make_interval(secs => ${ttlS}) from account`.execute(db)
  return numAffectedRows === 1n
}

export async function isLive(db: Db, userId: string, id: string): Promise<boolean> {
  const { rows } = await sql`
    /* sessions.live */
    select 1 from ${t.sessions}
     where user_id = ${userId} and id = ${id}::uuid and revoked_at is null and expires_at > now()`.execute(db)
  return rows.length > 0
}

/** Uses up the refresh token of one generation. False when it is not the current one of a live session. */
export async function advance(
  db: Db,
  userId: string,
  id: string,
  generation: number,
  ttlS: number,
): Promise<boolean> {
  const { numAffectedRows } = await sql`
    /* sessions.advance */
    update ${t.sessions}
       set generation = generation + 1, refreshed_at = now(), expires_at = now() + make_interval(secs => ${ttlS})
     where user_id = ${userId} and id = ${id}::uuid and generation = ${generation}::int
       and revoked_at is null and expires_at > now()`.execute(db)
  return numAffectedRows === 1n
}

/** False when it was not live. */
export async function revokeSession(db: Db, userId: string, id: string): Promise<boolean> {
  const { numAffectedRows } = await sql`
    /* sessions.revoke */
    update ${t.sessions} set revoked_at = now()
     where user_id = ${userId} and id = ${id}::uuid and revoked_at is null and expires_at > now()`.execute(db)
  return numAffectedRows === 1n
}

/** Ids of those that were live. */
export async function revokeSessions(db: Db, userId: string, except: string | undefined): Promise<string[]> {
  const { rows } = await sql<{ id: string }>`
    /* sessions.revoke_all */
    update ${t.sessions} set revoked_at = now()
     where user_id = ${userId} and revoked_at is null and id is distinct from ${except ?? null}::uuid
    returning id`.execute(db)
  return rows.map(({ id }) => id)
}

/** Ids of all of them, ended or not. */
export async function listSessionIds(db: Db, userId: string): Promise<string[]> {
  const { rows } = await sql<{ id: string }>`
    /* sessions.ids */ select id from ${t.sessions} where user_id = ${userId}`.execute(db)
  return rows.map(({ id }) => id)
}

/** Removes sessions that ended long enough ago for every token of theirs to have expired. How many. */
export async function deleteEnded(db: Db, graceS: number): Promise<number> {
  const { numAffectedRows } = await sql`
    /* sessions.sweep */
    delete from ${t.sessions} where expires_at < now() - make_interval(secs => ${graceS})`.execute(db)
  return Number(numAffectedRows ?? 0n)
}
