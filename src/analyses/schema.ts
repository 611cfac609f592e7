import { type Static, Type } from 'typebox'
import { closed, JsonObject, Nullable, Text, Timestamp, Uuid } from '../core/fields.ts'

export const LINK_KINDS = ['event', 'thought', 'emotion', 'urge', 'action', 'sensation'] as const
export type LinkKind = (typeof LINK_KINDS)[number]

const MAX_ITEMS = 1_000
const MAX_ITEM = 10_000
const MAX_TEXT = 100_000
/** Characters of a result's JSON. */
export const MAX_ANALYSIS = 1_000_000
/** What the column holds. */
export const MAX_VERSION = 2_147_483_647

// not `Text`: what models and people write may hold anything, and comes back as it was
const Words = (maxLength: number, description?: string) =>
  Type.String({ maxLength, minLength: 1, ...(description === undefined ? {} : { description }) })
const Field = (description: string) =>
  Type.Optional(Nullable(Type.String({ maxLength: MAX_TEXT, description })))
const ListOf = <T extends ReturnType<typeof Type.Object> | ReturnType<typeof Type.Union>>(
  item: T,
  description: string,
) => Type.Optional(Nullable(Type.Array(item, { maxItems: MAX_ITEMS, description })))

export const AnalysisItem = Type.Union([
  Words(MAX_ITEM),
  Type.Object({ text: Words(MAX_ITEM) }, { description: 'With fields of your own.' }),
])

export const ChainLink = Type.Object(
  {
    kind: Type.Enum([...LINK_KINDS]),
    text: Words(MAX_ITEM),
    at: Type.Optional(Nullable(Timestamp({ description: 'When it happened; kept as it is written.' }))),
    meta: Type.Optional(JsonObject({ description: 'Your own fields.' })),
  },
  closed,
)

const fields = {
  vulnerabilities: ListOf(
    AnalysisItem,
    'What made it likely: texts, or objects with a `text` and fields of your own.',
  ),
  chainLinks: ListOf(
    ChainLink,
    'From the prompting event to the consequences, in order: `kind` (event, thought, emotion, urge, action, sensation), `text`, `at` (RFC 3339), `meta`.',
  ),
  problemBehavior: Field('What was done.'),
  promptingEvent: Field('What set it off.'),
  consequences: Field('What came of it.'),
  solutions: ListOf(
    AnalysisItem,
    'What to do instead: texts, or objects with a `text` and fields of your own.',
  ),
  summary: Field('All of it in short.'),
}

/** What PUT takes: a field that is left out or null is empty. */
export const NewAnalysis = Type.Object(fields, { ...closed, minProperties: 1 })

/** What PATCH takes: a field that is left out stays, one that is null is emptied, a list is replaced as a whole. */
export const AnalysisPatch = Type.Object(fields, { ...closed, minProperties: 1 })

/** One step of the chain. */
export type ChainLink = {
  kind: LinkKind
  text: string
  /** When it happened, in RFC 3339, as it was written. */
  at?: string | null
  /** Your own fields. */
  meta?: Record<string, unknown>
}

/** A text, or an object with a text and fields of your own. */
export type AnalysisItem = string | { text: string; [field: string]: unknown }

/** What an analysis says. */
export type AnalysisContent = {
  vulnerabilities: AnalysisItem[]
  chainLinks: ChainLink[]
  problemBehavior: string | null
  promptingEvent: string | null
  consequences: string | null
  solutions: AnalysisItem[]
  summary: string | null
}

export const EMPTY_ANALYSIS: AnalysisContent = {
  vulnerabilities: [],
  chainLinks: [],
  problemBehavior: null,
  promptingEvent: null,
  consequences: null,
  solutions: [],
  summary: null,
}

export type NewAnalysis = { [K in keyof AnalysisContent]?: AnalysisContent[K] | null }
export type AnalysisPatch = NewAnalysis

/** What a session came to: one result per session. */
export type Analysis = AnalysisContent & {
  sessionId: string
  /** Grows with each change, from 1. A number that was given out never means other content. */
  version: number
  createdAt: Date
  /** When this version was written. */
  updatedAt: Date
}

/** When a version was written; the newest one is the analysis as it is. */
export type AnalysisVersion = {
  version: number
  writtenAt: Date
  /** Null for the newest. */
  replacedAt: Date | null
}

/** A version with what it says, in the shape that a put takes. */
export type StoredVersion = AnalysisVersion & { sessionId: string; analysis: AnalysisContent }

export type IfVersion = number | '*' | 'none'

/** Which analysis a write is meant for. */
export type WriteOptions = {
  /**
   * What must be there for the write to happen: the version of this number, any (`*`), or no analysis at all (`none`).
   * Without it a put only makes the first version, and a delete removes whatever is there.
   */
  ifVersion?: IfVersion
}

export const VersionQuery = Type.Object(
  {
    limit: Type.Optional(Type.Integer({ minimum: 1, maximum: 100, default: 50 })),
    cursor: Type.Optional(Type.String({ maxLength: 500, description: '`next_cursor` of the page before.' })),
  },
  closed,
)
export type VersionQuery = Static<typeof VersionQuery>

export const SESSION_TYPE = 'chain_analysis'

export const NewSession = Type.Object(
  {
    id: Type.Optional(
      Uuid({ description: 'Made by the client, for retries without duplicates. Default: a new one.' }),
    ),
    type: Type.Optional(Type.Enum([SESSION_TYPE])),
    title: Type.Optional(Nullable(Text(500))),
    meta: Type.Optional(JsonObject({ description: 'Your own fields.' })),
  },
  closed,
)
export type NewSession = Omit<Static<typeof NewSession>, 'type'> & { type?: 'chain_analysis' }

export const SessionQuery = Type.Object(
  {
    limit: Type.Optional(Type.Integer({ minimum: 1, maximum: 100, default: 50 })),
    cursor: Type.Optional(Type.String({ maxLength: 500, description: '`next_cursor` of the page before.' })),
    ended: Type.Optional(
      Type.Boolean({ description: 'Only those that ended, or only those that did not. Default: all.' }),
    ),
    includeArchived: Type.Optional(Type.Boolean({ default: false })),
  },
  closed,
)
export type SessionQuery = Static<typeof SessionQuery>

/** A thread of kind `chain_analysis`: its id is the thread's, where its messages are. */
export type Session = {
  id: string
  userId: string
  type: 'chain_analysis'
  title: string | null
  meta: Record<string, unknown>
  /** The highest seq given to a message so far; 0 for none. */
  lastSeq: number
  startedAt: Date
  endedAt: Date | null
  archivedAt: Date | null
  /** Of its analysis; null while there is none. */
  analysisVersion: number | null
}
