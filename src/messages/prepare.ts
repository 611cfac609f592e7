import { ThreadbaseError } from '../core/errors.ts'
import { isUuid, newId } from '../core/ids.ts'
import { readInstant } from '../core/instants.ts'
import { digestJson, encodeJson, encodeJsonb } from '../core/json.ts'
import { threadNotFound } from '../threads/service.ts'
import { renderText } from './render-text.ts'
import type { AppendOutcome, AppendRow } from './repo.ts'
import type { Message, NewMessage } from './schema.ts'

/** A message of a call, ready to be stored, and the text and content to answer with. */
export type Prepared = { row: Omit<AppendRow, 'call'>; message: NewMessage; text: string }

/**
 * Makes the rows of one call. A message id that comes twice with equal content is stored once; `places` gives for
 * each message the index of its row.
 * @throws conflict for a message id that comes twice with other content; invalid_input for what JSON cannot hold
 */
export function prepareCall(
  userId: string,
  threadId: string,
  messages: NewMessage[],
): { prepared: Prepared[]; places: number[] } {
  const prepared: Prepared[] = []
  const byKey = new Map<string, number>()
  const places = messages.map((message) => {
    const next = prepareMessage(userId, threadId, message)
    const { messageId } = next.row
    const known = messageId === null ? undefined : byKey.get(messageId)
    if (known !== undefined) {
      if (prepared[known]?.row.digest !== next.row.digest) throw messageConflict(String(messageId))
      return known
    }
    setParent(next, message.parentId, byKey)
    const place = prepared.push(next) - 1
    if (messageId !== null) byKey.set(messageId, place)
    return place
  })
  return { prepared, places }
}

export function messageConflict(messageId: string): ThreadbaseError {
  return new ThreadbaseError('conflict', `message_id ${messageId} is already used for other content`, {
    messageId,
  })
}

/** The row of a message that follows the newest one. @throws invalid_input for what JSON cannot hold */
export function prepareMessage(userId: string, threadId: string, message: NewMessage): Prepared {
  const { role, content, toolName = null, toolInput = null, toolOutput = null } = message
  const text = renderText(content)
  const row: Prepared['row'] = {
    userId,
    threadId,
    id: newId(),
    messageId: message.messageId ?? null,
    parentMode: 'auto',
    parentN: null,
    parentId: null,
    parentKey: null,
    role,
    content: encodeJson(content),
    text: text === content ? null : text,
    toolName,
    toolInput: toolInput === null ? null : encodeJson(toolInput),
    toolOutput: toolOutput === null ? null : encodeJson(toolOutput),
    meta: message.meta === undefined ? null : encodeJsonb(message.meta),
    digest: digestMessage(message),
    createdAt: message.createdAt === undefined ? null : readInstant(message.createdAt, 'created_at'),
    updatedAt: null,
  }
  return { row, message, text }
}

/** Equal for messages that may share a `messageId`: those with equal role, content and tool fields. 32 hex digits. */
export function digestMessage(message: NewMessage): string {
  const { role, content, toolName = null, toolInput = null, toolOutput = null } = message
  return digestJson([role, content, toolName, toolInput, toolOutput])
}

function setParent({ row }: Prepared, parentId: NewMessage['parentId'], byKey: Map<string, number>): void {
  if (parentId === undefined) return
  if (parentId === null) {
    row.parentMode = 'root'
    return
  }
  const place = byKey.get(parentId)
  if (place !== undefined) {
    row.parentMode = 'batch'
    row.parentN = place + 1
    return
  }
  row.parentMode = 'stored'
  row.parentId = isUuid(parentId) ? parentId : null
  row.parentKey = parentId
}

/** The message as it is stored, from what was given and what the database answered. */
export function toStored(
  { row, message, text }: Prepared,
  outcome: {
    id: string
    seq: number
    parentId: string | null
    meta: Record<string, unknown> | null
    createdAt: Date
  },
): Message {
  return {
    id: outcome.id,
    threadId: row.threadId,
    seq: outcome.seq,
    messageId: row.messageId,
    parentId: outcome.parentId,
    role: row.role,
    content: message.content,
    text,
    toolName: row.toolName,
    toolInput: message.toolInput ?? null,
    toolOutput: message.toolOutput ?? null,
    meta: outcome.meta ?? message.meta ?? {},
    createdAt: outcome.createdAt,
  }
}

/** @throws the error of the first message that the database refused; of a call, all are stored or none */
export function requireAccepted(prepared: Prepared[], outcomes: AppendOutcome[]): void {
  const refused = outcomes.findIndex(
    ({ status }) => status !== 'new' && status !== 'known' && status !== 'refused',
  )
  if (refused >= 0) throw refusal(prepared[refused] as Prepared, outcomes[refused] as AppendOutcome)
}

function refusal({ row }: Prepared, { status }: AppendOutcome): ThreadbaseError {
  if (status === 'no_thread') return threadNotFound(row.threadId)
  if (status === 'conflict') return messageConflict(String(row.messageId))
  return new ThreadbaseError('invalid_input', `parent_id ${row.parentKey} is no message of this thread`, {
    field: 'parent_id',
  })
}
