import { isRawNumber, toStorableText } from '../core/json.ts'
import { type NewMessage, ROLES, type Role } from '../messages/schema.ts'
import { isPathSegment, threadIdOf } from './ids.ts'
import { type Conversation, type CouncilMessage, MAX_TITLE, NEW_TITLE } from './schema.ts'

/*
 * A conversation as a thread with messages, and back. What a thread cannot say (unknown fields, a title of 600 characters, a
 * role that no message may have) is in `meta.council`, so that the document comes back as equal JSON.
 */

type Fields = Record<string, unknown>

/** Of a thread: what its columns do not say of the conversation. */
export type ThreadMark = {
  /** When the thread has another id. */
  id?: string
  /** The text of the document, where the time of the thread would be written otherwise. */
  created_at?: unknown
  /** When the column cannot hold it. */
  title?: unknown
  /** Named fields that the document lacks. */
  absent?: string[]
  fields?: Fields
}

/** Of a message: `as` says where its fields are when the content does not tell; `role` is one that no column holds. */
type MessageMark = { as?: 'content' | 'fields'; role?: unknown; fields?: Fields }

export type ConversationThread = {
  id: string
  title: string
  meta: { council?: ThreadMark }
  /** Undefined when the document names no time. */
  createdAt: Date | undefined
}

/** The row of a conversation. */
export function toThread({
  id,
  created_at,
  title,
  messages: _,
  ...fields
}: Conversation): ConversationThread {
  const threadId = threadIdOf(id)
  const createdAt = parseTime(created_at)
  const mark: ThreadMark = {}
  if (threadId !== id) mark.id = id
  if (created_at !== undefined && (createdAt === undefined || writeTime(createdAt) !== created_at))
    mark.created_at = created_at
  const column = toTitle(title)
  if (title !== undefined && column !== title) mark.title = title
  const absent = Object.entries({ created_at, title }).flatMap(([name, value]) =>
    value === undefined ? [name] : [],
  )
  if (absent.length > 0) mark.absent = absent
  if (Object.keys(fields).length > 0) mark.fields = fields
  return { id: threadId, title: column, meta: isEmpty(mark) ? {} : { council: mark }, createdAt }
}

/** What a conversation says of itself, from its row. */
export function fromThread(thread: {
  id: string
  title: string | null
  meta: Record<string, unknown>
  createdAt: Date
}): { id: string; created_at?: unknown; title?: unknown } & Fields {
  const mark = markOf<ThreadMark>(thread.meta)
  const absent = new Set(Array.isArray(mark.absent) ? mark.absent : [])
  const title = thread.title ?? NEW_TITLE
  // a title that was changed since is the column's
  const ownTitle = 'title' in mark && toTitle(mark.title) === title ? mark.title : title
  const named = {
    // a fork has its origin's meta, but is a conversation of its own
    id: isPathSegment(mark.id) && threadIdOf(mark.id) === thread.id ? mark.id : thread.id,
    created_at: 'created_at' in mark ? mark.created_at : writeTime(thread.createdAt),
    title: ownTitle,
  }
  const present = Object.entries(named).filter(
    ([name]) => !absent.has(name) || (name === 'title' && title !== toTitle(undefined)),
  )
  const { id: _, created_at: _c, title: _t, messages: _m, ...fields } = fieldsOf(mark)
  return { id: named.id, ...Object.fromEntries(present), ...fields }
}

/** The row of a message, without a `messageId` and a time of its own. */
export function toMessage(message: CouncilMessage): NewMessage {
  const { role, ...fields } = message
  const mark: MessageMark = {}
  const known = ROLES.includes(role as Role)
  if (!known) {
    // null where there is none: JSON has no undefined
    mark.role = role === undefined ? null : { is: role }
  }
  const { content, ...others } = fields
  const asFields = content === undefined || hasStages(message)
  if (asFields !== looksLikeFields(asFields ? fields : content)) mark.as = asFields ? 'fields' : 'content'
  if (!asFields && Object.keys(others).length > 0) mark.fields = others
  return {
    role: known ? (role as Role) : 'system',
    content: asFields ? fields : content,
    meta: { ...(isEmpty(mark) ? {} : { council: mark }), ...readUsage(message) },
  }
}

/** The message of a row. */
export function fromMessage(row: {
  role: string
  content: unknown
  meta: Record<string, unknown>
}): CouncilMessage {
  const mark = markOf<MessageMark>(row.meta)
  const asFields =
    mark.as === undefined ? looksLikeFields(row.content) : mark.as === 'fields' && isFields(row.content)
  const { content: _, ...others } = fieldsOf(mark)
  const fields = asFields ? (row.content as Fields) : { content: row.content, ...others }
  if (mark.role === null) return fields
  const role = isFields(mark.role) && 'is' in mark.role ? mark.role.is : row.role
  return { role, ...fields }
}

const STAGES = ['stage1', 'stage2', 'stage3'] as const
const hasStages = (message: object) => STAGES.some((stage) => stage in message)

/** Content that is the fields of an answer, not something that was said. */
function looksLikeFields(content: unknown): boolean {
  return isFields(content) && hasStages(content)
}

/** What totals are summed from, of a message's metadata: the calls of models, and their model where it stands beside them. */
function readUsage({ metadata }: CouncilMessage): Fields {
  const { usage, usage_metadata, model, response_metadata } = Object(metadata) as Fields
  if (Array.isArray(usage)) return usage.length > 0 ? { usage } : {}
  const calls = isObject(usage) ? { usage } : isObject(usage_metadata) ? { usage_metadata } : undefined
  if (calls === undefined) return {}
  return {
    ...calls,
    ...(typeof model === 'string' ? { model } : {}),
    ...(isObject(response_metadata) ? { response_metadata } : {}),
  }
}

const isObject = (value: unknown) => typeof value === 'object' && value !== null && !Array.isArray(value)

function toTitle(title: unknown): string {
  if (typeof title !== 'string' || title === '') return NEW_TITLE
  // by code points, as the column counts
  return [...toStorableText(title)].slice(0, MAX_TITLE).join('')
}

const NAIVE = /^\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d([.,]\d{1,9})?)?)?$/

/** A time as Python or JavaScript writes it; UTC where it names no zone. Undefined for what is none. */
export function parseTime(value: unknown): Date | undefined {
  if (typeof value !== 'string') return undefined
  const text = value.replace(' ', 'T').replace(',', '.')
  const date = new Date(NAIVE.test(value) && value.length > 10 ? `${text}Z` : text)
  const year = date.getUTCFullYear()
  return year >= 1 && year <= 9_999 ? date : undefined
}

/** A time as new conversations have it: Python reads it, too, and it sorts among those without a zone. */
export function writeTime(date: Date): string {
  return date.toISOString().replace('Z', '+00:00')
}

// users may write to meta: a mark may be anything
function markOf<T>({ council }: Record<string, unknown>): Partial<T> {
  return isFields(council) ? (council as Partial<T>) : {}
}

const fieldsOf = ({ fields }: { fields?: unknown }): Fields => (isFields(fields) ? fields : {})

function isFields(value: unknown): value is Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value) && !isRawNumber(value)
}

const isEmpty = (value: object) => Object.keys(value).length === 0
