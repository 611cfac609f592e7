import { type Selectable, sql } from 'kysely'
import { type AuditLogTable, type Db, t } from '../db/schema.ts'
import type { AuditAction, AuditEntry, AuditQuery } from './schema.ts'

export async function insertEntry(db: Db, entry: Omit<AuditEntry, 'at'>): Promise<void> {
  await sql`
    /* audit.insert */
    insert into ${t.auditLog} (user_id, id, actor_id, via, action, target, address, request_id)
    values (${entry.userId}, ${entry.id}::uuid, ${entry.actorId}, ${entry.via}, ${entry.action}, ${entry.target},
            ${entry.address}, ${entry.requestId})`.execute(db)
}

/** Newest first, `limit` at most, older than `before`. */
export async function listEntries(
  db: Db,
  { userId, actorId, action, limit, before }: AuditQuery & { limit: number; before: string | undefined },
): Promise<AuditEntry[]> {
  let select = db.selectFrom('audit_log').selectAll().modifyFront(sql`/* audit.list */`)
  if (userId !== undefined) select = select.where('user_id', '=', userId)
  if (actorId !== undefined) select = select.where('actor_id', '=', actorId)
  if (action !== undefined) select = select.where('action', '=', action)
  if (before !== undefined) select = select.where('id', '<', before)
  return (await select.orderBy('id', 'desc').limit(limit).execute()).map(toEntry)
}

function toEntry(row: Selectable<AuditLogTable>): AuditEntry {
  return {
    id: row.id,
    userId: row.user_id,
    at: row.at,
    actorId: row.actor_id,
    via: row.via,
    action: row.action as AuditAction,
    target: row.target,
    address: row.address,
    requestId: row.request_id,
  }
}
