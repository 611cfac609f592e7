import {
  AIMessage,
  type BaseMessage,
  ChatMessage,
  FunctionMessage,
  HumanMessage,
  type MessageContent,
  SystemMessage,
  ToolMessage,
} from '@langchain/core/messages'
import { ThreadbaseError } from '../core/errors.ts'
import type { Message, NewMessage, Role } from '../messages/schema.ts'

const ROLES: Record<string, Role> = {
  human: 'user',
  ai: 'assistant',
  system: 'system',
  tool: 'tool',
  function: 'tool',
}
/** Of a ChatMessage, whose role is any text. */
const NAMED_ROLES: Record<string, Role> = {
  assistant: 'assistant',
  system: 'system',
  developer: 'system',
  tool: 'tool',
}

/** What a message has for itself, not for what it says. */
const OF_THE_OBJECT = /^(lc_.*|type|content|id|tool_call_chunks)$/
const MAX_ID = 255
const MAX_TOOL_NAME = 255

type Fields = Record<string, unknown>

/**
 * A message as it is stored: the id as `message_id`, so that it is stored once; calls of tools as `tool_input`; tokens and
 * model where usage is counted; and what no column is for in `meta.langchain`.
 * @throws invalid_input for a message that is none of a conversation
 */
export function toNewMessage(message: BaseMessage): NewMessage {
  const { type, content, id } = message
  const fields = Object.fromEntries(
    Object.entries(message).filter(([name, value]) => !OF_THE_OBJECT.test(name) && !isEmpty(value)),
  )
  const { usage_metadata, response_metadata, tool_calls: calls, ...others } = fields
  const hasId = typeof id === 'string' && id !== '' && id.length <= MAX_ID
  const toolName = Array.isArray(calls)
    ? calls[0]?.name
    : type === 'tool' || type === 'function'
      ? message.name
      : undefined
  const langchain = { type, ...others, ...(hasId || id === undefined ? {} : { id }) }
  return {
    messageId: hasId ? id : null,
    role: roleOf(type, others.role),
    content,
    ...(typeof toolName === 'string' && toolName.length <= MAX_TOOL_NAME ? { toolName } : {}),
    ...(calls === undefined ? {} : { toolInput: calls }),
    meta: { langchain, ...definedOf({ usage_metadata, response_metadata }) },
  }
}

function roleOf(type: string, named: unknown): Role {
  if (type === 'generic') return NAMED_ROLES[String(named)] ?? 'user'
  const role = ROLES[type]
  if (role !== undefined) return role
  throw new ThreadbaseError('invalid_input', `a message of type ${type} is none of a conversation`, { type })
}

/** What constructors give by themselves. */
function isEmpty(value: unknown): boolean {
  if (value === undefined || value === null) return true
  return typeof value === 'object' && Object.keys(value).length === 0
}

const definedOf = (fields: Fields): Fields =>
  Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined))

/** The message that was stored; of what others stored, the one that says the same. */
export function toLangChain(message: Message): BaseMessage {
  const { meta } = message
  const { langchain } = meta as { langchain?: unknown }
  if (!isObject(langchain) || typeof langchain.type !== 'string') return toLike(message)
  const { type, ...others } = langchain
  const { usage_metadata, response_metadata } = meta
  return build(type, {
    content: message.content as MessageContent,
    ...(message.messageId === null ? {} : { id: message.messageId }),
    ...others,
    ...definedOf({ usage_metadata, response_metadata }),
    ...(message.toolInput === null ? {} : { tool_calls: message.toolInput }),
  })
}

function build(type: string, fields: Fields): BaseMessage {
  const given = fields as never
  switch (type) {
    case 'ai':
      return new AIMessage(given)
    case 'system':
      return new SystemMessage(given)
    case 'tool':
      return new ToolMessage(given)
    case 'function':
      return new FunctionMessage(given)
    case 'generic':
      return new ChatMessage(given)
    default:
      return new HumanMessage(given)
  }
}

/** Of what other clients appended, an import among them. */
function toLike({
  id,
  messageId,
  role,
  content,
  text,
  toolName,
  toolInput,
  toolOutput,
  meta,
}: Message): BaseMessage {
  const openai = isObject(meta.openai) ? meta.openai : {}
  const fields = { id: messageId ?? id, content: isContent(content) ? content : text }
  switch (role) {
    case 'user':
      return new HumanMessage(fields)
    case 'system':
      return new SystemMessage(fields)
    case 'assistant':
      return new AIMessage({ ...fields, ...readCalls(toolInput) })
    case 'tool': {
      const answer = content === null && toolOutput !== null ? JSON.stringify(toolOutput) : fields.content
      const callId = typeof openai.tool_call_id === 'string' ? openai.tool_call_id : fields.id
      return new ToolMessage({
        ...fields,
        content: answer,
        tool_call_id: callId,
        ...(toolName === null ? {} : { name: toolName }),
      })
    }
  }
}

const isObject = (value: unknown): value is Fields =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

function isContent(content: unknown): content is MessageContent {
  if (typeof content === 'string') return true
  return Array.isArray(content) && content.every((block) => isObject(block) && typeof block.type === 'string')
}

type Calls = Required<Pick<AIMessage, 'tool_calls' | 'invalid_tool_calls'>>

/** Calls as LangChain or OpenAI's API write them; what is neither is left out. */
function readCalls(calls: unknown): Calls {
  const read: Calls = { tool_calls: [], invalid_tool_calls: [] }
  for (const call of Array.isArray(calls) ? calls : []) {
    if (!isObject(call)) continue
    const { id: given, function: called } = call
    const id = typeof given === 'string' ? given : undefined
    if (typeof call.name === 'string' && isObject(call.args)) {
      read.tool_calls.push({ id, name: call.name, args: call.args, type: 'tool_call' })
    } else if (isObject(called) && typeof called.name === 'string') {
      const args = parseArguments(called.arguments)
      if (args !== undefined) read.tool_calls.push({ id, name: called.name, args, type: 'tool_call' })
      else
        read.invalid_tool_calls.push({
          ...{ id, name: called.name, args: String(called.arguments), type: 'invalid_tool_call' },
          error: 'its arguments are no JSON object',
        })
    }
  }
  return read
}

function parseArguments(text: unknown): Fields | undefined {
  try {
    const args: unknown = JSON.parse(String(text))
    return isObject(args) ? args : undefined
  } catch {
    return undefined
  }
}
