import type { AuditService } from '../audit/service.ts'
import { setNewest } from '../core/newest.ts'

/** Writes down that a user's key for a provider is used. */
export type NoteUse = (userId: string, provider: string) => Promise<void>

const MAX_NOTED = 10_000

/** The first use of a key on a day (UTC) by this process is written to the audit log: a line for each call would bury the rest. */
export function createUseNotes(audit: AuditService): NoteUse {
  const days = new Map<string, string>()
  return async (userId, provider) => {
    const key = `${provider} ${userId}`
    const today = new Date().toISOString().slice(0, 10)
    if (days.get(key) === today) return
    await audit.record({ userId, via: 'library' }, 'provider_key_used', userId, `provider_key ${provider}`)
    setNewest(days, key, today, MAX_NOTED)
  }
}
