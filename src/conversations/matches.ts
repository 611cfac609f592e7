import { ThreadbaseError } from '../core/errors.ts'
import type { ConversationHit, CouncilMessage } from './schema.ts'

export type Match = ConversationHit['matches'][number]

/** Of one conversation. */
export const MAX_MATCHES = 3
const MAX_QUERY = 1_000
/** Messages with their place in the conversation, from 0. */
type Placed = Iterable<[position: number, message: CouncilMessage]>
export type Matcher = (title: unknown, messages: Placed) => Match[]

const BEFORE = 40
const AFTER = 100
const SYNTAX = /[\\^$.*+?()[\]{}|/]/g

export const MAX_HITS = 200
export const DEFAULT_HITS = 50

/**
 * Finds a text in conversations, in any case.
 * @returns the first places where a conversation has it, three at most and one a message; the title comes first
 * @throws invalid_input unless `q` has 1 to 1,000 characters that are not all spaces
 */
export function createMatcher(q: unknown): Matcher {
  if (typeof q !== 'string' || q.trim() === '' || q.length > MAX_QUERY) {
    throw new ThreadbaseError('invalid_input', `q must be a text of 1 to ${MAX_QUERY} characters`, {
      field: 'q',
    })
  }
  // unlike texts in lower case, which may be longer than they were, it tells the place
  const pattern = new RegExp(q.replace(SYNTAX, '\\$&'), 'iu')
  return (title, messages) => {
    const matches: Match[] = []
    for (const { position, role, texts } of searchedTexts(title, messages)) {
      const snippet = firstSnippet(texts, pattern)
      if (snippet !== undefined) matches.push({ position, role, snippet })
      if (matches.length === MAX_MATCHES) break
    }
    return matches
  }
}

type Searched = { position: number | null; role: string | null; texts: unknown[] }

/** Title, questions, and the answers of stage 1 and 3. What is no text has none. */
function* searchedTexts(title: unknown, messages: Placed): Generator<Searched> {
  yield { position: null, role: null, texts: [title] }
  for (const [position, message] of messages) {
    const { role, content, stage1, stage3 } = Object(message) as Record<string, unknown>
    const answers = Array.isArray(stage1) ? stage1.map(responseOf) : []
    const texts = [content, ...answers, responseOf(stage3)]
    yield { position, role: typeof role === 'string' ? role : null, texts }
  }
}

const responseOf = (stage: unknown) => (stage as { response?: unknown } | null | undefined)?.response

function firstSnippet(texts: unknown[], pattern: RegExp): string | undefined {
  for (const text of texts) {
    const found = typeof text === 'string' ? pattern.exec(text) : null
    if (found !== null) return snippetAt(found.input, found.index, found[0].length)
  }
  return undefined
}

/** One line around the match, with dots where there is more. */
function snippetAt(text: string, index: number, length: number): string {
  const start = Math.max(0, index - BEFORE)
  const end = Math.min(text.length, index + length + AFTER)
  const cut = text.slice(isLow(text, start) ? start + 1 : start, isLow(text, end) ? end - 1 : end)
  const line = cut
    .toWellFormed()
    .replace(/[\p{Cc}\s]+/gu, ' ')
    .trim()
  return `${start > 0 ? '…' : ''}${line}${end < text.length ? '…' : ''}`
}

/** Whether a cut here would part a pair. */
const isLow = (text: string, at: number) => /^[\udc00-\udfff]/.test(text.slice(at, at + 1))
