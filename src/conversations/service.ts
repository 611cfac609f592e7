export type {
  AskOptions,
  Council,
  CouncilEvent,
  CouncilSettings,
  QuestionCounter,
} from './council/council.ts'
export { createCouncil } from './council/council.ts'
export { type JsonConversationsOptions, openJsonConversations } from './json/store.ts'
export { parseTime } from './mapping.ts'
export { createSqlConversations, type SqlSlices } from './sql/store.ts'
export type { ConversationStore, ListOptions, Turn, TurnStore } from './store.ts'
