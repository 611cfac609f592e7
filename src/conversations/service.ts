export type {
  AskOptions,
  Council,
  CouncilEvent,
  CouncilSettings,
  QuestionCounter,
} from './council/council.ts'
export { createCouncil } from './council/council.ts'
export { createSqlConversations } from './sql/store.ts'
export type { ConversationStore, ListOptions, Turn, TurnStore } from './store.ts'
