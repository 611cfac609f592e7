import { ThreadbaseError } from '../core/errors.ts'
import { encodeJson, parseJson } from '../core/json.ts'
import { parseInput } from '../core/validate.ts'
import { requireConversationId } from './ids.ts'
import { type Conversation, ConversationTitle, CouncilAnswer, type CouncilMessage } from './schema.ts'

/*
 * What all stores ask of what they are given, and how they say no.
 */

export const conversationNotFound = (id: string) =>
  new ThreadbaseError('not_found', `conversation ${id} does not exist`, { conversationId: id })

export const conversationExists = (id: string) =>
  new ThreadbaseError('conflict', `conversation ${id} exists`, { conversationId: id })

export const turnConflict = (id: string) =>
  new ThreadbaseError('conflict', `somebody else answers a question of conversation ${id}`, {
    conversationId: id,
  })

/** @throws invalid_input unless it has 1 to 500 characters that a database can hold */
export const requireTitle = (title: unknown): string => parseInput(ConversationTitle, title, 'title')

/** The message of a question. @throws invalid_input unless it is a text */
export function questionOf(content: unknown): CouncilMessage {
  if (typeof content === 'string') return { role: 'user', content }
  throw new ThreadbaseError('invalid_input', 'content must be a text', { field: 'content' })
}

/** The message of an answer, as JSON has it. @throws invalid_input */
export function answerMessage(answer: unknown): CouncilMessage {
  const { role: _, ...stages } = parseInput(CouncilAnswer, answer, 'answer') as CouncilMessage
  return asJson({ role: 'assistant', ...stages })
}

/**
 * The document as JSON has it.
 * @throws invalid_input unless it has an id that can be one, a list of messages that are objects, and a form in JSON
 */
export function requireConversation(conversation: unknown): Conversation {
  const { id, messages } = Object(conversation) as Partial<Conversation>
  requireConversationId(id)
  if (!Array.isArray(messages) || !messages.every(isObject)) {
    throw new ThreadbaseError('invalid_input', 'messages must be a list of objects', { field: 'messages' })
  }
  return asJson(conversation as Conversation)
}

/** What is left of a value when it is written and read again. @throws invalid_input when JSON cannot say it */
export const asJson = <T>(value: T): T => parseJson(encodeJson(value)) as T

const isObject = (value: unknown) => typeof value === 'object' && value !== null && !Array.isArray(value)

/** @throws invalid_input unless it is a whole number from 1 to `max` */
export function requireLimit(limit: unknown, max: number): number {
  if (Number.isInteger(limit) && (limit as number) >= 1 && (limit as number) <= max) return limit as number
  throw new ThreadbaseError('invalid_input', `limit must be a whole number from 1 to ${max}`, {
    field: 'limit',
  })
}
