import type { Conversation, ConversationFormat } from './schema.ts'

export function renderConversation(conversation: Conversation, format: ConversationFormat): string {
  return format === 'json' ? `${JSON.stringify(conversation, null, 2)}\n` : ''
}
