import { ThreadbaseError } from '../core/errors.ts'
import { isRawNumber, toStorableText } from '../core/json.ts'
import type { NewMessage, Role } from '../messages/schema.ts'
import { importedMessageId, threadIdOf } from './ids.ts'
import type { Conversation } from './schema.ts'

/** OpenAI's roles and ours. */
const ROLES = new Map<unknown, Role>([
  ['user', 'user'],
  ['assistant', 'assistant'],
  ['system', 'system'],
  ['developer', 'system'],
  ['tool', 'tool'],
  ['function', 'tool'],
])

/**
 * A conversation in the OpenAI fine-tuning shape. Whatever Threadbase has no column for is kept verbatim: fields of
 * the conversation in `line`, those of a message in its `meta.openai`.
 * @param idOf names a conversation that has no id
 * @throws invalid_input that says what is wrong and in which message
 */
export function fromOpenai(value: unknown, n: number, idOf: (value: unknown) => string): Conversation {
  const { messages, ...line } = requireObject(value, 'the line')
  if (!Array.isArray(messages)) {
    const hint = 'mapping' in line ? '; a ChatGPT conversation is imported as part of its JSON array' : ''
    throw invalid(`it has no array \`messages\`${hint}`)
  }
  return {
    n,
    format: 'jsonl',
    threadId: sourceIdOf(line.id) ?? idOf(value),
    title: titleOf(line),
    line,
    messages: messages.map(toMessage),
    source: messages,
    createdAt: undefined,
    updatedAt: undefined,
  }
}

/** The thread of a conversation's id; undefined when it has none. @throws invalid_input for an id of another type */
export function sourceIdOf(id: unknown): string | undefined {
  if (id === undefined || id === null || id === '') return undefined
  if (typeof id === 'string' || typeof id === 'number' || isRawNumber(id)) return threadIdOf(id)
  throw invalid('its id is neither a text nor a number')
}

const MAX_TITLE = 500

/** The title as a thread can hold it, cut to 500 characters; null when there is none or it is no text. */
export function titleOf({ title }: Record<string, unknown>): string | null {
  return typeof title === 'string' ? cut(title, MAX_TITLE) : null
}

/** Text as a column can hold it, cut by characters, as PostgreSQL counts them. */
export function cut(text: string, length: number): string {
  const storable = toStorableText(text)
  if (storable.length <= length) return storable
  return [...storable.slice(0, 2 * length)].slice(0, length).join('')
}

function toMessage(value: unknown, index: number): NewMessage {
  const { role: sourceRole, content, tool_calls: calls, ...rest } = requireObject(value, `message ${index}`)
  const role = ROLES.get(sourceRole)
  if (role === undefined)
    throw invalid(`message ${index} has the role ${JSON.stringify(sourceRole) ?? 'none'}`)
  const hasCalls = Array.isArray(calls) && calls.length > 0
  const openai = {
    ...rest,
    ...(role === sourceRole ? {} : { role: sourceRole }),
    ...(hasCalls || calls === undefined ? {} : { tool_calls: calls }),
  }
  const meta = {
    ...(Object.keys(openai).length > 0 ? { openai } : {}),
    ...(content === undefined ? { import: { omitted: ['content'] } } : {}),
  }
  return {
    messageId: importedMessageId(index),
    parentId: index === 0 ? null : importedMessageId(index - 1),
    role,
    content: content ?? null,
    ...(hasCalls ? { toolName: calledTool(calls[0]), toolInput: calls } : {}),
    ...(Object.keys(meta).length > 0 ? { meta } : {}),
  }
}

export const MAX_TOOL_NAME = 255

function calledTool(call: unknown): string | null {
  const name = (call as { function?: { name?: unknown } } | null)?.function?.name
  return typeof name === 'string' ? cut(name, MAX_TOOL_NAME) : null
}

export function requireObject(value: unknown, what: string): Record<string, unknown> {
  if (typeof value !== 'object' || value === null || Array.isArray(value) || isRawNumber(value))
    throw invalid(`${what} is not a JSON object`)
  return value as Record<string, unknown>
}

export function invalid(message: string): ThreadbaseError {
  return new ThreadbaseError('invalid_input', message)
}
