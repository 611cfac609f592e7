import type { AuditService } from './audit/service.ts'
import type { CouncilMessage } from './conversations/schema.ts'
import {
  type ConversationStore,
  createSqlConversations,
  openJsonConversations,
  parseTime,
  type SqlSlices,
} from './conversations/service.ts'
import type { Logger } from './core/log.ts'
import type { Scope } from './core/scope.ts'
import type { Database } from './db/database.ts'
import type { UsageSettings } from './usage/schema.ts'
import { createJsonUsage, createUsageService, type UsageMessage, type UsageService } from './usage/service.ts'

type Parts = SqlSlices & { audit: AuditService; log: Logger; settings: UsageSettings }

/** Conversations and what is counted of them: as rows, or as files where there is no database. */
export async function openConversationStores(
  database: Database,
  jsonDir: string | undefined,
  { audit, log, settings, ...slices }: Parts,
): Promise<{ conversations: ConversationStore; usage: UsageService }> {
  if (jsonDir === undefined) {
    const usage = createUsageService(database, { audit, settings })
    return { conversations: createSqlConversations(database, slices), usage }
  }
  const conversations = await openJsonConversations({ dir: jsonDir, log })
  const usage = createJsonUsage({
    dir: jsonDir,
    settings,
    audit: auditInLog(log),
    messagesOf: (scope) => readMessages(conversations, scope),
  })
  return { conversations, usage }
}

/** The audit log is a table: where there is none, who did what is said in the log of the process. */
function auditInLog(log: Logger): Pick<AuditService, 'record'> {
  return {
    record: async ({ userId: actor, via }, action, about, target) =>
      log.info({ actor, via, action, user: about, target }, 'audit'),
  }
}

/** One conversation after the other. A message that names no time of its own is of the day of its conversation. */
async function* readMessages(conversations: ConversationStore, scope: Scope): AsyncGenerator<UsageMessage> {
  for (const { id } of await conversations.listConversations(scope)) {
    const conversation = await conversations.findConversation(scope, id).catch(() => undefined)
    for (const message of conversation?.messages ?? []) {
      // files that a hand has edited may have anything among their messages
      const { metadata, created_at, timestamp } = Object(message) as CouncilMessage
      const time = parseTime(created_at) ?? parseTime(timestamp) ?? parseTime(conversation?.created_at)
      const isMeta = typeof metadata === 'object' && metadata !== null
      if (isMeta && time !== undefined) yield { createdAt: time, meta: metadata as Record<string, unknown> }
    }
  }
}
