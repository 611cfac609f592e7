import type { NewMessage, Role } from '../messages/schema.ts'
import { cut, invalid, MAX_TOOL_NAME, requireObject, sourceIdOf, titleOf } from './from-openai.ts'
import { importedMessageId } from './ids.ts'
import type { Conversation } from './schema.ts'

const ROLES = new Set<unknown>(['user', 'assistant', 'system', 'tool'])

type Source = Record<string, unknown>
type Node = { id: string; message: Source; parent: string | undefined; time: number; depth: number }

/**
 * A conversation of ChatGPT's conversations.json: a tree of nodes, some without a message. Messages come parent
 * before child, else by the time they were made; each keeps its nearest ancestor with a message as its parent, so
 * that edits and regenerated answers are siblings. What of a message is not its content is kept in `meta.chatgpt`.
 * @param idOf names a conversation that has no id
 * @throws invalid_input that says what is wrong and in which node
 */
export function fromChatgpt(value: unknown, n: number, idOf: (value: unknown) => string): Conversation {
  const { mapping, ...line } = requireObject(value, 'the element')
  if (mapping === undefined) throw invalid('it has no `mapping`, so it is no conversation of ChatGPT')
  const createdAt = toDate(line.create_time)
  const nodes = orderNodes(requireObject(mapping, '`mapping`'), createdAt?.getTime() ?? UNKNOWN)
  return {
    n,
    format: 'chatgpt',
    threadId: sourceIdOf(line.conversation_id) ?? sourceIdOf(line.id) ?? idOf(value),
    title: titleOf(line),
    line,
    messages: nodes.map((node) => toMessage(node)),
    source: [],
    createdAt,
    updatedAt: toDate(line.update_time) ?? createdAt,
  }
}

// four-digit years, as the service takes them
const MIN_SECONDS = Date.UTC(1, 0) / 1_000
const MAX_SECONDS = Date.UTC(9999, 0) / 1_000

/** The time of Unix seconds; undefined for anything else. */
function toDate(seconds: unknown): Date | undefined {
  if (typeof seconds !== 'number' || seconds > MAX_SECONDS || seconds < MIN_SECONDS) return undefined
  return new Date(Math.round(seconds * 1_000))
}

/** The nodes with a message. A node without a time of its own has its parent's; none is older than its parent. */
function orderNodes(mapping: Source, start: number): Node[] {
  const placed = new Map<string, Node>()
  for (const id of Object.keys(mapping)) {
    // from the first ancestor that is placed already down to this node; no recursion, for threads are long
    const path: string[] = []
    const onPath = new Set<string>()
    let at: string | undefined = id
    while (at !== undefined && !placed.has(at) && !onPath.has(at)) {
      path.push(at)
      onPath.add(at)
      at = parentOf(mapping, at)
    }
    if (at !== undefined && onPath.has(at)) throw invalid(`node ${at} is its own ancestor`)
    for (const step of path.reverse()) placed.set(step, placeNode(mapping, step, placed, start))
  }
  return [...placed.values()]
    .filter(({ message }) => message !== NO_MESSAGE)
    .sort((a, b) => a.time - b.time || a.depth - b.depth)
}

const NO_MESSAGE: Source = {}
// before every time that a file can name
const UNKNOWN = Number.NEGATIVE_INFINITY

function placeNode(mapping: Source, id: string, placed: Map<string, Node>, start: number): Node {
  const { message } = requireObject(mapping[id], `node ${id}`)
  const above = placed.get(parentOf(mapping, id) ?? '')
  const parent = above?.message === NO_MESSAGE ? above.parent : above?.id
  const floor = above?.time ?? start
  const depth = (above?.depth ?? 0) + 1
  if (message === null || message === undefined)
    return { id, message: NO_MESSAGE, parent, time: floor, depth }
  const source = requireObject(message, `the message of node ${id}`)
  const own = toDate(source.create_time)?.getTime() ?? floor
  return { id, message: source, parent, time: above === undefined ? own : Math.max(own, floor), depth }
}

/** Undefined for a root and for a parent that is not there. */
function parentOf(mapping: Source, id: string): string | undefined {
  const parent = (mapping[id] as { parent?: unknown } | null | undefined)?.parent
  return typeof parent === 'string' && Object.hasOwn(mapping, parent) ? parent : undefined
}

function toMessage({ id, message, parent, time }: Node): NewMessage {
  const { content, ...rest } = message
  const author = (message.author ?? {}) as { role?: unknown; name?: unknown }
  if (!ROLES.has(author.role))
    throw invalid(`node ${id} has the role ${JSON.stringify(author.role) ?? 'none'}`)
  const text = plainText(content)
  const isTool = author.role === 'tool' && typeof author.name === 'string'
  return {
    messageId: importedMessageId(id),
    parentId: parent === undefined ? null : importedMessageId(parent),
    role: author.role as Role,
    content: text?.text ?? content ?? null,
    ...(isTool ? { toolName: cut(String(author.name), MAX_TOOL_NAME) } : {}),
    // parts that were joined cannot be told apart any more
    meta: { chatgpt: text?.whole === false ? { ...rest, content } : rest },
    ...(time === UNKNOWN ? {} : { createdAt: new Date(time) }),
  }
}

/** The text of a content that is only text; `whole` when nothing else is in it. */
function plainText(content: unknown): { text: string; whole: boolean } | undefined {
  if (typeof content !== 'object' || content === null) return undefined
  const { content_type: type, parts, ...others } = content as Source
  if (type !== 'text' || !Array.isArray(parts) || !parts.every((part) => typeof part === 'string'))
    return undefined
  return { text: parts.join('\n'), whole: parts.length === 1 && Object.keys(others).length === 0 }
}
