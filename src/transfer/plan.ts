import type { Scope } from '../core/scope.ts'
import type { Database } from '../db/database.ts'
import type { MessageService, StoredDigest } from '../messages/service.ts'
import type { Thread } from '../threads/schema.ts'
import type { ThreadService } from '../threads/service.ts'
import { compareExported, compareImported, hasOwnMessages, type Plan } from './compare.ts'
import { knownBy } from './extent.ts'
import { isImportedMessageId } from './ids.ts'
import type { Conversation, ImportMark } from './schema.ts'
import { createMessageWriter, importMarkOf, lineOf } from './to-openai.ts'

export type Slices = Pick<Database, 'forUser'> & { threads: ThreadService; messages: MessageService }

export type Planned = { conversation: Conversation; thread: Thread | undefined; plan: Plan }

/**
 * Compares conversations with the threads that exist under their ids. `thread` is undefined where there is none (in a
 * dry run, or because it was deleted at that moment).
 */
export async function planExisting(
  slices: Slices,
  scope: Scope,
  conversations: Conversation[],
): Promise<Planned[]> {
  const threads = await slices.threads.findMany(
    scope,
    conversations.map(({ threadId }) => threadId),
  )
  const digests = Map.groupBy(
    await slices.messages.listDigests(scope, [...threads.keys()]),
    ({ threadId }) => threadId,
  )
  const planned: Planned[] = []
  for (const conversation of conversations) {
    const thread = threads.get(conversation.threadId)
    const stored = digests.get(conversation.threadId) ?? []
    const plan: Plan =
      thread === undefined
        ? { do: 'append', messages: conversation.messages, newFields: false }
        : await planOne(slices, scope, conversation, thread, stored)
    planned.push({ conversation, thread, plan })
  }
  return planned
}

async function planOne(
  slices: Slices,
  scope: Scope,
  conversation: Conversation,
  thread: Thread,
  stored: StoredDigest[],
): Promise<Plan> {
  const mark = importMarkOf(thread)
  const imported = mark?.format === conversation.format ? mark : undefined
  const mixed = imported !== undefined && hasOwnMessages(thread, stored)
  const isKnown = knownBy(
    imported !== undefined && (await isComplete(slices, scope, thread, imported)) ? imported.done : undefined,
    conversation,
  )
  if (conversation.format === 'chatgpt' || (imported !== undefined && !mixed)) {
    if (imported !== undefined) return compareImported(conversation, thread, imported, stored, isKnown)
    return refuse(thread, 'it was not imported from ChatGPT')
  }
  const likeness = await compareExported(conversation, {
    line: lineOf(thread),
    messages: writtenMessages(slices.messages, scope, thread),
  })
  if (likeness.like === 'begins') return { do: 'nothing' }
  if (imported === undefined) {
    return refuse(thread, likeness.like === 'other' ? likeness.reason : 'the line has more messages')
  }
  // where it goes on with messages that were imported before, those were deleted
  const next = likeness.like === 'continued' ? conversation.messages[likeness.count] : undefined
  if (likeness.like === 'continued' && (next === undefined || !isKnown(next, likeness.count)))
    return continueAt(conversation, likeness.count)
  return compareImported(conversation, thread, imported, stored, isKnown)
}

/** Whether all messages came in that an import was to bring: the thread reached its end, and with those alone. */
async function isComplete(
  slices: Slices,
  scope: Scope,
  thread: Thread,
  { done }: ImportMark,
): Promise<boolean> {
  if (done === undefined || thread.lastSeq <= done.seq) return thread.lastSeq === done?.seq
  const { items } = await slices.messages.list(scope, thread.id, {
    before: done.seq + 1,
    order: 'desc',
    limit: 1,
  })
  return items.every(({ messageId }) => isImportedMessageId(messageId))
}

function refuse({ id }: Thread, reason: string): Plan {
  return { do: 'refuse', reason: `thread ${id} exists and is another one: ${reason}` }
}

/** The line goes on where the thread ends, whose last messages the thread got from elsewhere. */
function continueAt({ messages }: Conversation, count: number): Plan {
  const [first, ...others] = messages.slice(count)
  const newest = first === undefined ? [] : [{ ...first, parentId: undefined }]
  return { do: 'append', messages: [...newest, ...others], newFields: true }
}

async function* writtenMessages(
  messages: MessageService,
  scope: Scope,
  thread: Thread,
): AsyncGenerator<Record<string, unknown>> {
  const write = createMessageWriter(thread)
  for await (const page of messages.readPath(scope, thread.id, thread.lastSeq))
    for (const message of page) yield write(message)
}
