import { Type } from 'typebox'
import { isThreadbaseError, type ThreadbaseError } from '../core/errors.ts'
import { requireUuid } from '../core/ids.ts'
import { parseInput } from '../core/validate.ts'
import type { Db } from '../db/schema.ts'
import { type AppendCall, type AppendQueue, charsOf, MAX_CHARS } from './append-queue.ts'
import { type Prepared, prepareCall, requireAccepted } from './prepare.ts'
import { type AppendOutcome, appendRows } from './repo.ts'
import { MAX_APPEND, NewMessage } from './schema.ts'

/** One thread's share of an append to many. */
export type BulkAppend = { threadId: string; messages: NewMessage[] }

/** How many messages were new; `error` when one was refused: those of earlier parts stay. */
export type BulkAppended = { added: number; error?: ThreadbaseError }

const Messages = Type.Array(NewMessage)

type Part = Prepared[]
type Plan = { threadId: string; parts: Part[]; error?: ThreadbaseError }

/** See `appendMany` of the service. */
export async function appendMany(
  queue: AppendQueue,
  userId: string,
  calls: BulkAppend[],
): Promise<BulkAppended[]> {
  const planned = calls.map((call) => planCall(userId, call))
  const firsts = queue.all(
    planned.flatMap(({ threadId, parts: [first] }) =>
      first === undefined ? [] : [toCall(userId, threadId, first)],
    ),
  )
  let next = 0
  return Promise.all(
    planned.map((plan) =>
      finishCall(queue, userId, plan, plan.parts.length > 0 ? firsts[next++] : undefined),
    ),
  )
}

/** See `appendIn` of the service. */
export async function appendIn(tx: Db, userId: string, threadId: string, input: NewMessage[]): Promise<void> {
  const messages = parseInput(Messages, input.map(withTextDate), 'messages') as NewMessage[]
  for (const part of prepareParts(userId, threadId, messages)) {
    const outcomes = await appendRows(
      tx,
      part.map(({ row }) => ({ ...row, call: 1 })),
    )
    requireAccepted(part, outcomes)
  }
}

/** Waits for the first part, then appends the others. */
async function finishCall(
  queue: AppendQueue,
  userId: string,
  { threadId, parts, error }: Plan,
  first: Promise<AppendOutcome[]> | undefined,
): Promise<BulkAppended> {
  let added = 0
  try {
    for (const [i, part] of parts.entries()) {
      const outcomes = (await (i === 0 ? first : queue(toCall(userId, threadId, part)))) ?? []
      requireAccepted(part, outcomes)
      added += outcomes.filter(({ status }) => status === 'new').length
    }
    return error === undefined ? { added } : { added, error }
  } catch (failure) {
    return { added, error: ofOneCall(failure) }
  }
}

function toCall(userId: string, threadId: string, part: Part): AppendCall {
  // what is brought in from elsewhere does not make its thread look newer than it is
  return { userId, threadId, rows: part.map(({ row }) => ({ ...row, updatedAt: row.createdAt })) }
}

/** The error if it concerns one call alone. @throws every other, which stops all of them */
function ofOneCall(error: unknown): ThreadbaseError {
  if (isThreadbaseError(error) && error.code !== 'unavailable') return error
  throw error
}

function planCall(userId: string, call: BulkAppend): Plan {
  const threadId = requireUuid(call.threadId, 'thread id')
  try {
    const messages = parseInput(Messages, call.messages.map(withTextDate), 'messages') as NewMessage[]
    return { threadId, parts: [...prepareParts(userId, threadId, messages)] }
  } catch (error) {
    return { threadId, parts: [], error: ofOneCall(error) }
  }
}

/** Parts of at most 1,000 messages, and of a size that a statement takes well unless a message alone exceeds it. */
function* prepareParts(userId: string, threadId: string, messages: NewMessage[]): Generator<Part> {
  if (messages.length === 0) return
  if (messages.length <= MAX_APPEND) {
    const { prepared } = prepareCall(userId, threadId, messages)
    if (messages.length === 1 || charsOf(prepared.map(({ row }) => row)) <= MAX_CHARS) return yield prepared
  }
  const half = Math.min(MAX_APPEND, Math.ceil(messages.length / 2))
  yield* prepareParts(userId, threadId, messages.slice(0, half))
  yield* prepareParts(userId, threadId, messages.slice(half))
}

/** A date as the schema of a message has it. */
export function withTextDate(message: NewMessage): NewMessage {
  return message?.createdAt instanceof Date && !Number.isNaN(message.createdAt.getTime())
    ? { ...message, createdAt: message.createdAt.toISOString() }
    : message
}
