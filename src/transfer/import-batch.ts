import { isThreadbaseError, type ThreadbaseError } from '../core/errors.ts'
import { canonicalJson } from '../core/json.ts'
import type { Scope } from '../core/scope.ts'
import type { NewMessage } from '../messages/schema.ts'
import type { BulkAppended } from '../messages/service.ts'
import type { Thread } from '../threads/schema.ts'
import type { Plan } from './compare.ts'
import { extentOf } from './extent.ts'
import { titleOf } from './from-openai.ts'
import type { Outcome } from './import.ts'
import { type Planned, planExisting, type Slices } from './plan.ts'
import { reasonOf } from './read.ts'
import type { Conversation, ImportMark } from './schema.ts'
import { importMarkOf } from './to-openai.ts'

/** What is stored of a conversation beside its messages, which are all there when the thread reaches `seq`. */
function markOf(conversation: Conversation, seq: number): { import: ImportMark } {
  const { format, line, n } = conversation
  return { import: { format, line, n, done: extentOf(conversation, seq) } }
}

/**
 * Stores conversations, each of another thread. The threads come first: a process that ends in between leaves threads
 * without (all) their messages, which the next run finds and completes.
 * @param inTurn runs the making of threads of one batch after that of another, so that they get older times
 */
export async function importBatch(
  slices: Slices,
  scope: Scope,
  conversations: Conversation[],
  inTurn: <T>(work: () => Promise<T>) => Promise<T>,
): Promise<Outcome[]> {
  const threads = conversations.map((conversation) => ({
    id: conversation.threadId,
    title: conversation.title,
    meta: markOf(conversation, conversation.messages.length),
    createdAt: conversation.createdAt,
    updatedAt: conversation.updatedAt,
  }))
  const made = await inTurn(() => slices.threads.createMany(scope, threads))
  const outcomes: Outcome[] = []
  const fresh: Conversation[] = []
  const existing: Conversation[] = []
  for (const [i, conversation] of conversations.entries()) {
    const outcome = made[i]
    if (outcome === 'created') fresh.push(conversation)
    else if (outcome === 'exists') existing.push(conversation)
    else outcomes.push(refused(conversation, outcome))
  }
  outcomes.push(...(await appendFresh(slices, scope, fresh)))
  outcomes.push(...(await appendExisting(slices, scope, existing)))
  return outcomes.sort((a, b) => a.n - b.n)
}

function refused({ n }: Conversation, error: ThreadbaseError | undefined | string, messages = 0): Outcome {
  return { n, messages, status: 'refused', reason: reasonOf(error) }
}

async function appendFresh(slices: Slices, scope: Scope, conversations: Conversation[]): Promise<Outcome[]> {
  const results = await append(
    slices,
    scope,
    conversations.map((conversation) => [conversation, conversation.messages]),
  )
  const outcomes: Outcome[] = []
  for (const [i, conversation] of conversations.entries()) {
    const { added, error } = results[i] ?? { added: 0 }
    if (error === undefined) {
      outcomes.push({ n: conversation.n, messages: added, status: 'imported' })
      continue
    }
    // refused in whole: leave no empty thread behind
    if (added === 0) await slices.threads.delete(scope, conversation.threadId)
    outcomes.push(refused(conversation, error, added))
  }
  return outcomes
}

async function appendExisting(
  slices: Slices,
  scope: Scope,
  conversations: Conversation[],
): Promise<Outcome[]> {
  if (conversations.length === 0) return []
  const planned = await planExisting(slices, scope, conversations)
  // before the messages: if the process ends in between, the next run still finds messages to append
  for (const { conversation, thread, plan } of planned) {
    if (plan.do === 'append' && thread !== undefined)
      await storeMark(slices, scope, conversation, thread, plan)
  }
  const results = await append(
    slices,
    scope,
    planned.map(({ conversation, plan }) => [conversation, plan.do === 'append' ? plan.messages : []]),
  )
  return planned.map((item, i) => outcomeOf(item, results[i] ?? { added: 0 }))
}

/** Also what a dry run says, with `added` as it would be. */
export function outcomeOf({ conversation, thread, plan }: Planned, { added, error }: BulkAppended): Outcome {
  const { n } = conversation
  if (plan.do === 'refuse') return refused(conversation, plan.reason)
  if (error !== undefined) return refused(conversation, error, added)
  if (plan.do === 'nothing') return { n, messages: 0, status: 'known' }
  // a thread without messages is what an interrupted import leaves
  const isNew = thread === undefined || (thread.lastSeq === 0 && added > 0)
  return { n, messages: added, status: isNew ? 'imported' : 'extended' }
}

/** Appends to those that have something to append; one result each, in order. */
async function append(
  slices: Slices,
  scope: Scope,
  items: [Conversation, NewMessage[]][],
): Promise<BulkAppended[]> {
  const calls = items.flatMap(([{ threadId }, messages]) =>
    messages.length > 0 ? [{ threadId, messages }] : [],
  )
  const results = calls.length > 0 ? await slices.messages.appendMany(scope, calls) : []
  let next = 0
  return items.map(([, messages]) => (messages.length > 0 ? (results[next++] as BulkAppended) : { added: 0 }))
}

/**
 * What the import brings is written down, unless it is as it was; new fields of the line replace those stored before,
 * the title too, unless it was changed here.
 */
async function storeMark(
  slices: Slices,
  scope: Scope,
  conversation: Conversation,
  thread: Thread,
  { messages, newFields }: Extract<Plan, { do: 'append' }>,
): Promise<void> {
  const before = importMarkOf(thread)
  const mark = markOf(conversation, thread.lastSeq + messages.length)
  if (!newFields && canonicalJson(before?.done) === canonicalJson(mark.import.done)) return
  const untouched = newFields && before !== undefined && titleOf(before.line) === thread.title
  try {
    await slices.threads.update(scope, thread.id, {
      ...(untouched ? { title: conversation.title } : {}),
      meta: newFields || before === undefined ? mark : { import: { ...mark.import, line: before.line } },
    })
  } catch (error) {
    // deleted since: so be it
    if (!isThreadbaseError(error, 'not_found')) throw error
  }
}
