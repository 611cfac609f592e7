import { Type } from 'typebox'
import { ThreadbaseError } from '../core/errors.ts'
import { JsonObject } from '../core/fields.ts'
import { parseInput } from '../core/validate.ts'
import { requireConversationId } from './ids.ts'
import { type Conversation, ConversationTitle, CouncilAnswer, type CouncilMessage } from './schema.ts'

/** What both stores take: shapes of questions, answers and documents. */

/** Of one question or search, in characters. */
export const MAX_QUESTION = 10_000_000
export const MAX_QUERY = 1_000

const Question = Type.String({ maxLength: MAX_QUESTION })
const Query = Type.String({ minLength: 1, maxLength: MAX_QUERY })
const Limit = Type.Integer({ minimum: 1, maximum: 100_000 })
const SearchLimit = Type.Integer({ minimum: 1, maximum: 200 })
const Documents = Type.Array(JsonObject())

export function conversationNotFound(id: string): ThreadbaseError {
  return new ThreadbaseError('not_found', `conversation ${id} does not exist`, { conversationId: id })
}

export function conversationExists(id: string): ThreadbaseError {
  return new ThreadbaseError('conflict', `conversation ${id} exists already`, { conversationId: id })
}

/** @throws invalid_input */
export function toQuestion(content: string): CouncilMessage {
  return { role: 'user', content: parseInput(Question, content, 'content') }
}

/** The message of an answer: its fields in the order that files have. @throws invalid_input */
export function toAnswer(answer: CouncilAnswer): CouncilMessage {
  const { stage1, stage2, stage3, metadata, ...others } = parseInput(CouncilAnswer, answer, 'answer')
  const message = { role: 'assistant', stage1, stage2, stage3, ...others }
  return metadata === undefined || metadata === null ? message : { ...message, metadata }
}

/** @throws invalid_input */
export function toTitle(title: string): string {
  return parseInput(ConversationTitle, title, 'title')
}

/** A document that can be stored, whatever its messages hold. @throws invalid_input */
export function toDocument(conversation: Conversation): Conversation {
  const document = parseInput(JsonObject(), conversation, 'conversation') as Conversation
  requireConversationId(document.id)
  parseInput(Documents, document.messages, 'conversation.messages')
  return document
}

/** @throws invalid_input */
export function toQuery(q: string): string {
  return parseInput(Query, q, 'q')
}

/** @throws invalid_input */
export function toLimit(limit: number | undefined): number | undefined {
  return limit === undefined ? undefined : parseInput(Limit, limit, 'limit')
}

/** @throws invalid_input */
export function toSearchLimit(limit: number | undefined): number {
  return limit === undefined ? 50 : parseInput(SearchLimit, limit, 'limit')
}
