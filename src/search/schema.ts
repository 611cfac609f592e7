import { type Static, Type } from 'typebox'
import { closed, Text, Timestamp, Uuid } from '../core/fields.ts'
import type { Page } from '../core/pages.ts'
import { ROLES, type Role } from '../messages/schema.ts'
import { type ThreadKind as Kind, ThreadKind } from '../threads/schema.ts'

export const SEARCH_MODES = ['text', 'semantic', 'hybrid'] as const
export type SearchMode = (typeof SEARCH_MODES)[number]

export const MAX_QUERY = 10_000

export const SearchQuery = Type.Object(
  {
    q: Type.String({
      minLength: 1,
      maxLength: MAX_QUERY,
      description:
        'What to look for. As text: words, all of which must be there, "phrases", `or`, and `-without`; the last word may be the beginning of one.',
    }),
    mode: Type.Optional(
      Type.Enum([...SEARCH_MODES], {
        description:
          'By words, by meaning, or by both. Default: hybrid where embeddings are to be had, else text.',
      }),
    ),
    kind: Type.Optional(ThreadKind),
    threadId: Type.Optional(Uuid({ description: 'Only in this thread.' })),
    role: Type.Optional(Type.Enum([...ROLES], { description: 'Only messages of this role.' })),
    since: Type.Optional(Timestamp({ description: 'Only what was said then or later.' })),
    until: Type.Optional(Timestamp({ description: 'Only what was said before.' })),
    includeArchived: Type.Optional(
      Type.Boolean({ default: false, description: 'Also in archived threads.' }),
    ),
    limit: Type.Optional(Type.Integer({ minimum: 1, maximum: 100, default: 20 })),
    cursor: Type.Optional(Text(2_000, { description: '`next_cursor` of the page before.' })),
  },
  closed,
)
export type SearchQuery = Omit<Static<typeof SearchQuery>, 'mode' | 'kind' | 'role' | 'since' | 'until'> & {
  mode?: SearchMode
  kind?: Kind
  role?: Role
  since?: string | Date
  until?: string | Date
}

/** How a text was looked for: the first of these that finds something. */
export const SEARCH_METHODS = ['words', 'substring', 'any', 'similar'] as const
export type SearchMethod = (typeof SEARCH_METHODS)[number]

/** Hits, best first. */
export type SearchPage = Page<SearchHit> & {
  /** How it was searched: what was asked for, or, where `degraded` says so, less than that. */
  mode: SearchMode
  /**
   * How the text was found. `words`: with all of its words. `substring`: with its parts anywhere, also inside words.
   * `any`: with any of its words. `similar`: with something that is spelt like it. Null: nothing was, or it was not
   * looked for.
   */
  method: SearchMethod | null
  /** Why it was not searched by meaning too, in a sentence; null when nothing is amiss. */
  degraded: string | null
}

/** One place where the query was found. */
export type SearchHit = {
  type: 'message' | 'analysis'
  /** Higher is nearer. Comparable within one search only. */
  score: number
  /** HTML: the text around what was found, escaped, with `<mark>` around the words of the query. */
  snippet: string
  thread: SearchedThread
  /** Null for a result of a session. */
  message: SearchedMessage | null
  /** Null for a message. */
  analysis: { version: number; updatedAt: Date } | null
}

export type SearchedThread = {
  id: string
  title: string | null
  kind: Kind
  archivedAt: Date | null
}

export type SearchedMessage = {
  id: string
  messageId: string | null
  seq: number
  role: Role
  toolName: string | null
  createdAt: Date
}
