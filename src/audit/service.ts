import { newId } from '../core/ids.ts'
import { decodeIdCursor, encodeCursor, type Page, toPage } from '../core/pages.ts'
import { parseInput } from '../core/validate.ts'
import type { Db } from '../db/schema.ts'
import * as repo from './repo.ts'
import { type Actor, type AuditAction, type AuditEntry, AuditQuery } from './schema.ts'

export type AuditService = ReturnType<typeof createAuditService>

const CURSOR = 'audit'

/** The audit log: who did what to which record. It is only ever added to. */
export function createAuditService(db: Db) {
  return {
    /**
     * Writes one line. A caller that must not act unseen awaits it before it acts.
     * @param about whose account or data it is about
     */
    async record(actor: Actor, action: AuditAction, about: string, target?: string): Promise<void> {
      await repo.insertEntry(db, {
        userId: about,
        id: newId(),
        actorId: actor.userId,
        via: actor.via,
        action,
        target: target ?? null,
        address: actor.address ?? null,
        requestId: actor.requestId ?? null,
      })
    },

    /** Newest first, of all users: for administrators. 50 a page, 200 at most. */
    async list(input: AuditQuery = {}): Promise<Page<AuditEntry>> {
      const query = parseInput(AuditQuery, input, 'query') as AuditQuery
      const limit = query.limit ?? 50
      const before = query.cursor === undefined ? undefined : decodeIdCursor(CURSOR, query.cursor)
      const rows = await repo.listEntries(db, { ...query, limit: limit + 1, before })
      return toPage(rows, limit, (last) => encodeCursor(CURSOR, [last.id]))
    },
  }
}
