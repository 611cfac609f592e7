import type { Scope } from '../core/scope.ts'
import type {
  Conversation,
  ConversationFormat,
  ConversationHit,
  ConversationSummary,
  CouncilAnswer,
  CouncilMessage,
  CouncilMetadata,
  Stage1,
  Stage2,
} from './schema.ts'

/**
 * Council conversations, wherever they are kept: one interface, on SQL and on JSON files. Every function takes the scope
 * first; a conversation of another user is `not_found`, like one that does not exist. Times are ISO 8601 texts.
 *
 * Source: council-json-to-postgres, "Storage Interface".
 */
export type ConversationStore = {
  readonly kind: 'sql' | 'json'
  /** What is used, for people; never a credential. */
  readonly description: string

  /**
   * A new conversation without messages, titled `New Conversation`.
   * @param id 1 to 200 bytes of text that could name a file: no slashes, no dot in front. Default: a new UUID
   * @throws conflict when the user has a conversation of this id
   */
  createConversation(scope: Scope, id?: string): Promise<Conversation>

  /** Undefined when the user has no such conversation. @throws invalid_input for an id that cannot be one */
  findConversation(scope: Scope, id: string): Promise<Conversation | undefined>

  /** @throws not_found; invalid_input when its file is no JSON: `details` say where */
  getConversation(scope: Scope, id: string): Promise<Conversation>

  /**
   * Makes what is stored equal to this: a new conversation, or the place of the one with its id. Of messages that are
   * stored already in the same places nothing changes. The last one who saves wins.
   */
  saveConversation(scope: Scope, conversation: Conversation): Promise<void>

  /** Newest `created_at` first, ids descending among equals. All of them, unless `limit` says how many. */
  listConversations(scope: Scope, options?: ListOptions): Promise<ConversationSummary[]>

  /** Appends `{role: "user", content}`. @returns the message as stored @throws not_found */
  addUserMessage(scope: Scope, id: string, content: string): Promise<CouncilMessage>

  /** Appends `{role: "assistant", stage1, stage2, stage3, metadata?}`. @returns the message as stored @throws not_found */
  addAssistantMessage(scope: Scope, id: string, answer: CouncilAnswer): Promise<CouncilMessage>

  /** @param title 1 to 500 characters @throws not_found */
  updateConversationTitle(scope: Scope, id: string, title: string): Promise<void>

  /** False when there was none, which is no error. */
  deleteConversation(scope: Scope, id: string): Promise<boolean>

  /**
   * Conversations with `q` in their title or in a text of theirs (questions, answers of stage 1 and 3), in any case, in the
   * order of {@link listConversations}; 50 of them unless `limit` says otherwise, 200 at most.
   */
  search(scope: Scope, q: string, options?: { limit?: number }): Promise<ConversationHit[]>

  /** The whole conversation as text: Markdown to read, or its JSON. @throws not_found */
  export(scope: Scope, id: string, format: ConversationFormat): Promise<string>

  /** The answer under way, one at most for each conversation. */
  readonly turns: TurnStore

  close(): Promise<void>
}

export type ListOptions = {
  limit?: number
  /** Only those behind this one in the order of the list: the last of the page before. */
  after?: Pick<ConversationSummary, 'id' | 'created_at'>
}

/** What an answer has so far. */
export type Turn = {
  /** The question. */
  content: string
  stage1?: Stage1
  stage2?: Stage2
  metadata?: CouncilMetadata
}

/**
 * Keeps an answer while it is made, stage by stage, so that what was announced is never lost: who asks the same question
 * again after a crash goes on from there.
 */
export type TurnStore = {
  /**
   * Begins to answer a question: stores it as a message, unless the newest message is this very question, not answered.
   * Then what its stages have so far is in `turn`.
   * @param holder a UUID of who answers
   * @returns `first`: it is the first message of the conversation; `resumed`: the question was there before
   * @throws not_found; conflict while somebody else answers a question of this conversation
   */
  begin(
    scope: Scope,
    id: string,
    turn: { content: string; holder: string; leaseS: number },
  ): Promise<{ turn: Turn; first: boolean; resumed: boolean }>

  /** Stores what the stages have so far and prolongs the lease. @throws conflict when it is another's by now; not_found */
  save(scope: Scope, id: string, holder: string, turn: Turn, leaseS: number): Promise<void>

  /** Ends the turn with its answer, which is stored as a message. @throws conflict when it is another's by now; not_found */
  finish(scope: Scope, id: string, holder: string, answer: CouncilAnswer): Promise<CouncilMessage>

  /** Gives up for now: what is stored stays for who asks again. No error when it is another's by now, or gone. */
  release(scope: Scope, id: string, holder: string): Promise<void>
}
