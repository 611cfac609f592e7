import { hash } from 'node:crypto'
import type { NewMessage } from '../messages/schema.ts'
import type { Conversation, ImportExtent } from './schema.ts'

// characters of base64; enough to tell the nodes of one conversation from each other
const NODE_DIGEST = 8

/** What the thread has of the conversation once it has reached `seq`. */
export function extentOf(conversation: Conversation, seq: number): ImportExtent {
  const { format, messages, source } = conversation
  const digest = format === 'jsonl' ? digestOf(source) : messages.map(digestOfNode).join('')
  return { seq, count: messages.length, digest }
}

function digestOf(source: unknown[]): string {
  try {
    return hash('sha256', JSON.stringify(source), 'base64').slice(0, 2 * NODE_DIGEST)
  } catch {
    // nested too deep: such a line is refused when its messages are stored
    return ''
  }
}

const digestOfNode = ({ messageId }: NewMessage) =>
  hash('sha256', messageId ?? '', 'base64').slice(0, NODE_DIGEST)

/** Makes the function that tells which messages of a conversation an earlier import brought in whole. */
export function knownBy(
  extent: ImportExtent | undefined,
  { format, source }: Conversation,
): (message: NewMessage, index: number) => boolean {
  if (extent === undefined) return () => false
  const { count, digest } = extent
  if (format === 'jsonl') {
    const begins = count <= source.length && digestOf(source.slice(0, count)) === digest
    return (_, index) => begins && index < count
  }
  const nodes = new Set<string>()
  for (let i = 0; i < digest.length; i += NODE_DIGEST) nodes.add(digest.slice(i, i + NODE_DIGEST))
  return (message) => nodes.has(digestOfNode(message))
}

/** The messages to append; one whose parent was deleted follows the nearest ancestor that is there, as in the thread. */
export function reattach(missing: NewMessage[], all: NewMessage[], stored: Set<string>): NewMessage[] {
  const parents = new Map(all.map(({ messageId, parentId }) => [messageId, parentId]))
  const there = new Set([...stored, ...missing.map(({ messageId }) => messageId)])
  return missing.map((message) => {
    let { parentId } = message
    while (typeof parentId === 'string' && !there.has(parentId)) parentId = parents.get(parentId) ?? null
    return parentId === message.parentId ? message : { ...message, parentId }
  })
}
