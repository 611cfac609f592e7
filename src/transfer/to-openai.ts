import type { Message } from '../messages/schema.ts'
import type { Thread } from '../threads/schema.ts'
import { titleOf } from './from-openai.ts'
import { isImportedMessageId, threadIdOf } from './ids.ts'
import { IMPORT_FORMATS, type ImportExtent, type ImportFormat, type ImportMark } from './schema.ts'

type Fields = Record<string, unknown>

const isObject = (value: unknown): value is Fields =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

/** Where a thread was imported from; undefined for any other. */
export function importMarkOf({ meta }: Pick<Thread, 'meta'>): ImportMark | undefined {
  const mark = meta.import
  if (!isObject(mark) || !isObject(mark.line)) return undefined
  if (!(IMPORT_FORMATS as readonly unknown[]).includes(mark.format)) return undefined
  return {
    format: mark.format as ImportFormat,
    line: mark.line,
    ...(isExtent(mark.done) ? { done: mark.done } : {}),
  }
}

// applications may write to meta
function isExtent(done: unknown): done is ImportExtent {
  return (
    isObject(done) &&
    Number.isInteger(done.seq) &&
    Number.isInteger(done.count) &&
    typeof done.digest === 'string'
  )
}

/**
 * The fields of a thread's JSON line except `messages`: those it was imported with, its title if that was changed
 * since; for any other thread its id and title.
 */
export function lineOf(thread: Thread): Fields {
  const mark = importMarkOf(thread)
  if (mark?.format !== 'jsonl') {
    return { id: thread.id, ...(thread.title === null ? {} : { title: thread.title }) }
  }
  const { line } = mark
  // a fork has its origin's meta, but is a thread of its own
  const isFork = typeof line.id === 'string' && line.id !== '' && threadIdOf(line.id) !== thread.id
  return {
    ...line,
    ...(isFork ? { id: thread.id } : {}),
    ...(titleOf(line) === thread.title ? {} : { title: thread.title }),
  }
}

/**
 * Makes the function that writes a thread's messages, in order, as OpenAI's chat format has them. An imported one is
 * what it was in its file. In any other, a tool call is written as `tool_calls`, a tool's output as the content, and
 * the call that an output belongs to is the newest of that tool, unless `meta.openai` says it.
 */
export function createMessageWriter(thread: Thread): (message: Message) => Fields {
  const fromFile = importMarkOf(thread)?.format === 'jsonl'
  const lastCall = new Map<string, string>()
  return (message) => {
    const imported = fromFile && isImportedMessageId(message.messageId)
    const written = imported ? writeImported(message) : writeNative(message, lastCall)
    for (const call of Array.isArray(written.tool_calls) ? written.tool_calls : []) noteCall(call, lastCall)
    return written
  }
}

function writeImported(message: Message): Fields {
  const { openai, import: mark } = message.meta
  const omitted = isObject(mark) && Array.isArray(mark.omitted) ? mark.omitted : []
  return {
    role: message.role,
    ...(omitted.includes('content') ? {} : { content: message.content }),
    ...(message.toolInput === null ? {} : { tool_calls: message.toolInput }),
    ...(isObject(openai) ? openai : {}),
  }
}

function writeNative(message: Message, lastCall: Map<string, string>): Fields {
  const { role, content, toolName, toolInput, toolOutput, seq } = message
  const openai = isObject(message.meta.openai) ? message.meta.openai : {}
  if (role === 'assistant' && (toolName !== null || toolInput !== null)) {
    const { tool_call_id: id = `call_${seq}`, ...others } = openai
    const call = { name: toolName ?? 'unknown', arguments: JSON.stringify(toolInput ?? {}) }
    const calls = isCalls(toolInput) ? toolInput : [{ id, type: 'function', function: call }]
    return { role, content, tool_calls: calls, ...others }
  }
  if (role !== 'tool') return { role, content, ...openai }
  const callId = lastCall.get(toolName ?? ANY_TOOL)
  return {
    role,
    content: content === null && toolOutput !== null ? toText(toolOutput) : content,
    ...(callId === undefined ? {} : { tool_call_id: callId }),
    ...openai,
  }
}

const toText = (output: unknown) => (typeof output === 'string' ? output : JSON.stringify(output))

const functionName = (call: unknown) =>
  isObject(call) && isObject(call.function) ? call.function.name : undefined

/** Whether an application stored OpenAI's calls as they came. */
function isCalls(input: unknown): input is unknown[] {
  return (
    Array.isArray(input) && input.length > 0 && input.every((call) => typeof functionName(call) === 'string')
  )
}

// no tool can have it: a name holds no NUL
const ANY_TOOL = '\0'

function noteCall(call: unknown, lastCall: Map<string, string>): void {
  if (!isObject(call) || typeof call.id !== 'string') return
  lastCall.set(ANY_TOOL, call.id)
  const name = functionName(call)
  if (typeof name === 'string') lastCall.set(name, call.id)
}
