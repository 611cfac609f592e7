import { type Static, Type } from 'typebox'
import { closed, JsonObject, Nullable, Text, Uuid } from '../core/fields.ts'

export const THREAD_KINDS = ['chat', 'council', 'chain_analysis', 'flow'] as const
export const ThreadKind = Type.Enum([...THREAD_KINDS], { description: 'What the thread is used for.' })
export type ThreadKind = (typeof THREAD_KINDS)[number]

const Title = Nullable(Text(500))

export const NewThread = Type.Object(
  {
    id: Type.Optional(
      Uuid({ description: 'Made by the client, for retries without duplicates. Default: a new one.' }),
    ),
    title: Type.Optional(Title),
    kind: Type.Optional(ThreadKind),
    meta: Type.Optional(JsonObject({ description: 'Your own fields: tags, UI state.' })),
  },
  closed,
)
export type NewThread = Omit<Static<typeof NewThread>, 'kind'> & { kind?: ThreadKind }

export const ThreadPatch = Type.Object(
  {
    title: Type.Optional(Title),
    meta: Type.Optional(
      JsonObject({ description: 'Merged into the stored fields; a field that is null is removed.' }),
    ),
  },
  { ...closed, minProperties: 1 },
)
export type ThreadPatch = Static<typeof ThreadPatch>

export const ThreadQuery = Type.Object(
  {
    limit: Type.Optional(Type.Integer({ minimum: 1, maximum: 100, default: 50 })),
    cursor: Type.Optional(Type.String({ maxLength: 500, description: '`next_cursor` of the page before.' })),
    includeArchived: Type.Optional(Type.Boolean({ default: false })),
    kind: Type.Optional(ThreadKind),
    q: Type.Optional(Text(500, { description: 'Only titles that contain this, in any case.' })),
  },
  closed,
)
export type ThreadQuery = Omit<Static<typeof ThreadQuery>, 'kind'> & { kind?: ThreadKind }

export const ForkOptions = Type.Object(
  {
    at: Type.Optional(
      Type.Integer({
        minimum: 0,
        maximum: Number.MAX_SAFE_INTEGER,
        description: 'Copy the messages up to this seq. Default: all.',
      }),
    ),
  },
  closed,
)
export type ForkOptions = Static<typeof ForkOptions>

/** A conversation. Times are instants with millisecond precision. */
export type Thread = {
  id: string
  userId: string
  title: string | null
  kind: ThreadKind
  meta: Record<string, unknown>
  /** The highest seq given to a message so far; 0 for none. */
  lastSeq: number
  /** The thread this one was forked from, while it exists. */
  forkedFrom: string | null
  createdAt: Date
  /** Of the thread or its newest message, whichever is later. */
  updatedAt: Date
  archivedAt: Date | null
  endedAt: Date | null
}
