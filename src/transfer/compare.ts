import { canonicalJson } from '../core/json.ts'
import type { NewMessage } from '../messages/schema.ts'
import { digestMessage, type StoredDigest } from '../messages/service.ts'
import type { Thread } from '../threads/schema.ts'
import { reattach } from './extent.ts'
import { isImportedMessageId, placeOf } from './ids.ts'
import type { Conversation, ImportMark } from './schema.ts'
import { lineOf } from './to-openai.ts'

/** What is to be done with a conversation whose thread exists. */
export type Plan =
  | { do: 'nothing' }
  | {
      do: 'append'
      messages: NewMessage[] /** Whether the fields of the line are to be stored too. */
      newFields: boolean
    }
  | { do: 'refuse'; reason: string }

const equal = (a: unknown, b: unknown) => canonicalJson(a) === canonicalJson(b)

/** Compares a conversation with what an earlier import of it stored. */
export function compareImported(
  conversation: Conversation,
  thread: Thread,
  mark: ImportMark,
  stored: StoredDigest[],
  isKnown: IsKnown,
): Plan {
  const plan =
    conversation.format === 'jsonl'
      ? compareLines(conversation, thread, mark, stored, isKnown)
      : compareTrees(conversation, mark, stored, isKnown)
  if (plan.do !== 'append') return plan
  const there = new Set(stored.map(({ messageId }) => messageId))
  return { ...plan, messages: reattach(plan.messages, conversation.messages, there) }
}

type IsKnown = (message: NewMessage, index: number) => boolean

/**
 * A line is known when it is, or begins as, what was imported; it may have more messages at its end. A place that is
 * missing in the middle was deleted since and is not brought back.
 */
function compareLines(
  { messages, line }: Conversation,
  thread: Thread,
  mark: ImportMark,
  stored: StoredDigest[],
  isKnown: IsKnown,
): Plan {
  let highest = -1
  let differing: number | undefined
  for (const item of stored) {
    const place = placeOf(item.messageId)
    if (place === undefined) continue
    highest = Math.max(highest, place)
    const message = messages[place]
    if (message !== undefined && !isSame(message, item)) differing = Math.min(place, differing ?? place)
  }
  if (differing !== undefined)
    return { do: 'refuse', reason: `message ${differing} differs from the one that was imported before` }
  // those at its end may have been deleted, too
  while (highest + 1 < messages.length && isKnown(messages[highest + 1] as NewMessage, highest + 1)) highest++
  const missing = messages.slice(highest + 1)
  // as it was imported, or as it would be exported now
  const newFields = !equal(line, mark.line) && !equal(line, lineOf(thread))
  if (missing.length > 0) return { do: 'append', messages: missing, newFields }
  // a line that is shorter than what is there is an older state: its fields count no more than that
  if (!newFields || messages.length <= highest) return { do: 'nothing' }
  return {
    do: 'refuse',
    reason: `it was imported before with the same messages and other ${differingFields(line, mark)}`,
  }
}

function isSame(message: NewMessage, { digest, meta }: StoredDigest): boolean {
  return (
    digestMessage(message) === digest &&
    equal(message.meta?.openai, meta.openai) &&
    equal(message.meta?.import, meta.import)
  )
}

function differingFields(line: Record<string, unknown>, mark: ImportMark): string {
  const names = [...new Set([...Object.keys(line), ...Object.keys(mark.line)])]
  const differing = names.filter((name) => !equal(line[name], mark.line[name]))
  // a field that is absent on one side and null on the other
  return `fields${differing.length > 0 ? ` (${differing.slice(0, 5).join(', ')})` : ''}`
}

/** A tree may have more nodes, anywhere, and newer fields; a node's role and content never change. */
function compareTrees(
  { messages, line }: Conversation,
  mark: ImportMark,
  stored: StoredDigest[],
  isKnown: IsKnown,
): Plan {
  const digests = new Map(stored.map(({ messageId, digest }) => [messageId, digest]))
  const missing: NewMessage[] = []
  for (const [i, message] of messages.entries()) {
    const known = digests.get(message.messageId ?? '')
    if (known === undefined) {
      if (!isKnown(message, i)) missing.push(message)
    } else if (known !== digestMessage(message)) {
      const node = String(message.messageId).replace(/^import:/, '')
      return {
        do: 'refuse',
        reason: `the message of node ${node} differs from the one that was imported before`,
      }
    }
  }
  const newFields = Number(line.update_time ?? 0) > Number(mark.line.update_time ?? 0)
  return missing.length > 0 || newFields ? { do: 'append', messages: missing, newFields } : { do: 'nothing' }
}

/** The messages and fields of a thread in the form that its export has. */
export type Exported = { line: Record<string, unknown>; messages: AsyncIterable<Record<string, unknown>> }

/**
 * `begins`: the line is a beginning of the thread, or all of it. `continued`: the thread is a beginning of the line,
 * `count` messages long.
 */
export type Likeness =
  | { like: 'begins' }
  | { like: 'continued'; count: number }
  | { like: 'other'; reason: string }

/** Compares a line with a thread as it would be exported. */
export async function compareExported({ source, line }: Conversation, exported: Exported): Promise<Likeness> {
  let count = 0
  for await (const message of exported.messages) {
    if (count === source.length) return { like: 'begins' }
    if (!equal(source[count], message)) return { like: 'other', reason: `message ${count} differs` }
    count++
  }
  if (count < source.length) return { like: 'continued', count }
  return equal(line, exported.line)
    ? { like: 'begins' }
    : { like: 'other', reason: 'its other fields differ' }
}

/** Whether a thread has messages that did not come with an import. */
export function hasOwnMessages(thread: Thread, stored: StoredDigest[]): boolean {
  return thread.lastSeq > stored.filter(({ messageId }) => isImportedMessageId(messageId)).length
}
