import { isThreadbaseError } from '../../core/errors.ts'
import type { Database } from '../../db/database.ts'
import { isSqlState, UNIQUE_VIOLATION } from '../../db/errors.ts'
import type { Thread } from '../../threads/schema.ts'
import type { ThreadService } from '../../threads/service.ts'
import { compare, type Plan } from './compare.ts'
import type { FileConversation } from './document.ts'
import * as repo from './repo.ts'
import type { MoveLine } from './schema.ts'
import { spreadTimes } from './times.ts'

export type Slices = { forUser: Database['forUser']; threads: ThreadService }

// as much as a statement takes well
const MAX_ROWS = 1_000
const MAX_CHARS = 8_000_000
const TRIES = 3

/** Stores conversations of one user, each whole or not at all. @returns a line for each, in order */
export async function storeConversations(
  slices: Slices,
  userId: string,
  conversations: FileConversation[],
  dryRun: boolean,
): Promise<MoveLine[]> {
  const lines = new Map<FileConversation, MoveLine>()
  let left = conversations
  // again for those that somebody else made or changed in between
  for (let tries = 0; left.length > 0 && tries < TRIES; tries++) {
    const plans = await planAll(slices, userId, left)
    const fresh = left.filter((conversation) => plans.get(conversation) === 'new')
    const made = dryRun ? new Set(fresh) : await insertAll(slices, userId, fresh, lines)
    for (const conversation of made) lines.set(conversation, toLine(conversation, 'moved'))
    for (const [conversation, plan] of plans) {
      if (plan === 'new') continue
      const line = await carryOut(slices, conversation, plan, dryRun)
      if (line !== undefined) lines.set(conversation, line)
    }
    left = left.filter((conversation) => !lines.has(conversation))
  }
  return conversations.map(
    (conversation) =>
      lines.get(conversation) ?? fail(conversation, 'it was changed at the same time: run it again'),
  )
}

type Existing = { thread: Thread; stored: repo.StoredMessage[]; plan: Plan }

async function planAll(
  { forUser, threads }: Slices,
  userId: string,
  conversations: FileConversation[],
): Promise<Map<FileConversation, Existing | 'new'>> {
  const found = await threads.findMany(
    { userId },
    conversations.map(({ threadId }) => threadId),
  )
  const ids = [...found.values()].filter(({ kind }) => kind === 'council').map(({ id }) => id)
  const stored = ids.length === 0 ? [] : await repo.listStored(forUser(userId), userId, ids)
  const byThread = Map.groupBy(stored, ({ threadId }) => threadId)
  return new Map(
    conversations.map((conversation): [FileConversation, Existing | 'new'] => {
      const thread = found.get(conversation.threadId)
      if (thread === undefined) return [conversation, 'new']
      const messages = byThread.get(thread.id) ?? []
      return [conversation, { thread, stored: messages, plan: compare(conversation, thread, messages) }]
    }),
  )
}

/** Makes new conversations; when the database refuses one of them, each alone. @returns those that were not there */
async function insertAll(
  slices: Slices,
  userId: string,
  conversations: FileConversation[],
  lines: Map<FileConversation, MoveLine>,
): Promise<Set<FileConversation>> {
  if (conversations.length === 0) return new Set()
  try {
    const made = await insert(slices, userId, conversations)
    return new Set(conversations.filter(({ threadId }) => made.has(threadId)))
  } catch (error) {
    if (!isThreadbaseError(error, 'invalid_input')) throw error
    const [first] = conversations
    if (conversations.length === 1 && first !== undefined) {
      lines.set(first, fail(first, error.message))
      return new Set()
    }
    const made = new Set<FileConversation>()
    for (const one of conversations)
      for (const conversation of await insertAll(slices, userId, [one], lines)) made.add(conversation)
    return made
  }
}

async function insert(
  { forUser }: Slices,
  userId: string,
  conversations: FileConversation[],
): Promise<Set<string>> {
  const threads: repo.ThreadRow[] = []
  const messages: repo.MessageRow[] = []
  for (const conversation of conversations) {
    const { threadId: id, title, meta, createdAt, mtime } = conversation
    const rows = toRows(conversation, { from: 0, seq: 1, parent: null, since: createdAt })
    const empty = new Date(Math.max(mtime.getTime(), createdAt.getTime()))
    const updatedAt = rows.at(-1)?.createdAt ?? empty
    threads.push({ id, title, meta, lastSeq: rows.length, createdAt, updatedAt })
    messages.push(...rows)
  }
  const [first = [], ...rest] = inParts(messages)
  if (rest.length === 0)
    return new Set(await repo.insertConversations(forUser(userId), userId, threads, first))
  return forUser(userId)
    .transaction()
    .execute(async (tx) => {
      const made = new Set(await repo.insertConversations(tx, userId, threads, first))
      for (const part of rest) {
        const rows = part.filter(({ threadId }) => made.has(threadId))
        if (rows.length > 0) await repo.insertMessages(tx, userId, rows)
      }
      return made
    })
}

type Start = { from: number; seq: number; parent: number | null /** Of the message before. */; since: Date }

function toRows(conversation: FileConversation, { from, seq, parent, since }: Start): repo.MessageRow[] {
  const { messages, own, mtime, threadId } = conversation
  const times = spreadTimes(own.slice(from), since, mtime)
  return messages.slice(from).map(({ row }, n) => ({
    threadId,
    seq: seq + n,
    parentSeq: n === 0 ? parent : seq + n - 1,
    row: { ...row, messageId: `council:${from + n}` },
    createdAt: times[n] as Date,
  }))
}

/** Parts that a statement takes well, unless a message alone exceeds it. */
function inParts(messages: repo.MessageRow[]): repo.MessageRow[][] {
  const parts: repo.MessageRow[][] = []
  let part: repo.MessageRow[] = []
  let chars = 0
  for (const message of messages) {
    const size = message.row.content.length
    if (part.length > 0 && (part.length >= 2 * MAX_ROWS || chars + size > MAX_CHARS)) {
      parts.push(part)
      part = []
      chars = 0
    }
    part.push(message)
    chars += size
  }
  return [...parts, part]
}

/** Undefined when it was changed meanwhile. */
async function carryOut(
  slices: Slices,
  conversation: FileConversation,
  existing: Existing,
  dryRun: boolean,
): Promise<MoveLine | undefined> {
  const { plan } = existing
  if (plan.do === 'fail') return fail(conversation, plan.reason)
  if (plan.do === 'nothing') return { ...toLine(conversation, 'known', 0), reason: plan.reason }
  const added = conversation.messages.length - plan.from
  try {
    if (!dryRun && !(await grow(slices, conversation, existing, plan))) return undefined
    return { ...toLine(conversation, 'extended', added), reason: plan.reason }
  } catch (error) {
    if (isThreadbaseError(error, 'invalid_input')) return fail(conversation, error.message)
    if (!isSqlState(error, UNIQUE_VIOLATION)) throw error
    return fail(conversation, 'a message of it is stored at another place: nothing was changed')
  }
}

async function grow(
  { forUser }: Slices,
  conversation: FileConversation,
  { thread, stored }: Existing,
  plan: Extract<Plan, { do: 'grow' }>,
): Promise<boolean> {
  const { userId, title, createdAt, dated } = conversation
  const last = stored.at(-1)
  const rows = toRows(conversation, {
    from: plan.from,
    seq: thread.lastSeq + 1,
    parent: last?.seq ?? null,
    since: last?.createdAt ?? createdAt,
  })
  const { council: _, ...others } = thread.meta
  const head = plan.head
    ? { title, meta: { ...others, ...conversation.meta }, createdAt: dated ? createdAt : null }
    : null
  return forUser(userId)
    .transaction()
    .execute(async (tx) => {
      const grown = await repo.growThread(tx, userId, {
        id: thread.id,
        lastSeq: thread.lastSeq,
        updatedAt: thread.updatedAt,
        added: rows.length,
        newUpdatedAt: rows.at(-1)?.createdAt ?? null,
        head,
      })
      if (grown)
        for (const part of inParts(rows)) if (part.length > 0) await repo.insertMessages(tx, userId, part)
      return grown
    })
}

function toLine(
  { file, userId, id, messages }: FileConversation,
  status: MoveLine['status'],
  added = messages.length,
): MoveLine {
  return { file, kind: 'conversation', status, userId, id, messages: added }
}

export function fail(conversation: FileConversation, reason: string): MoveLine {
  return { ...toLine(conversation, 'failed', 0), reason }
}
