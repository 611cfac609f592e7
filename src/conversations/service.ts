export { createSqlConversations } from './sql/store.ts'
export type { ConversationStore, ListOptions, Turn, TurnStore } from './store.ts'
