import { type Static, Type } from 'typebox'
import { AnyJson, closed, JsonObject, Nullable, Text, Timestamp, Uuid } from '../core/fields.ts'

export const ROLES = ['user', 'assistant', 'system', 'tool'] as const
export type Role = (typeof ROLES)[number]

export const MAX_APPEND = 1_000

export const NewMessage = Type.Object(
  {
    messageId: Type.Optional(
      Nullable(
        Text(255, {
          minLength: 1,
          description: 'Idempotency key, unique within the thread: an append can be repeated.',
        }),
      ),
    ),
    parentId: Type.Optional(
      Nullable(
        Text(255, {
          minLength: 1,
          description:
            'The message this one answers or replaces a sibling under: its id or message_id. Null: none. Default: the newest message of the thread.',
        }),
      ),
    ),
    role: Type.Enum([...ROLES]),
    content: AnyJson({ description: 'A text, structured blocks, or any other JSON; kept as it is.' }),
    toolName: Type.Optional(Nullable(Text(255))),
    toolInput: Type.Optional(AnyJson({ description: 'Parameters of a tool call: any JSON.' })),
    toolOutput: Type.Optional(AnyJson({ description: 'Result of a tool: any JSON.' })),
    meta: Type.Optional(JsonObject({ description: 'Your own fields: tokens, costs, trace ids.' })),
    createdAt: Type.Optional(Timestamp({ description: 'When it was said. Default: now.' })),
  },
  closed,
)
export type NewMessage = Omit<Static<typeof NewMessage>, 'role' | 'createdAt'> & {
  role: Role
  createdAt?: string | Date
}

export const MessagePatch = Type.Object(
  { meta: JsonObject({ description: 'Merged into the stored fields; a field that is null is removed.' }) },
  closed,
)
export type MessagePatch = Static<typeof MessagePatch>

const Seq = Type.Integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER })

export const MessageQuery = Type.Object(
  {
    limit: Type.Optional(Type.Integer({ minimum: 1, maximum: 200, default: 50 })),
    before: Type.Optional(Type.Integer({ ...Seq, description: 'Only messages with a lower seq.' })),
    after: Type.Optional(Type.Integer({ ...Seq, description: 'Only messages with a higher seq.' })),
    order: Type.Optional(
      Type.Enum(['asc', 'desc'], {
        description: 'By seq. Default: desc when only `before` is given, else asc.',
      }),
    ),
    cursor: Type.Optional(Type.String({ maxLength: 500, description: '`next_cursor` of the page before.' })),
    leaf: Type.Optional(Uuid({ description: 'Only the path from the root to the message with this id.' })),
  },
  closed,
)
export type MessageQuery = Omit<Static<typeof MessageQuery>, 'order'> & { order?: 'asc' | 'desc' }

/** One message. Its place in the thread is `seq`, from 1; absent values are null. */
export type Message = {
  id: string
  threadId: string
  seq: number
  messageId: string | null
  /** The message this one answers or follows; null for a root. */
  parentId: string | null
  role: Role
  content: unknown
  /** Plain-text rendering of content. */
  text: string
  toolName: string | null
  toolInput: unknown
  toolOutput: unknown
  meta: Record<string, unknown>
  createdAt: Date
}
