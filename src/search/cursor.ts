import { isUuid } from '../core/ids.ts'
import { digestJson } from '../core/json.ts'
import { badCursor, decodeCursor, encodeCursor } from '../core/pages.ts'
import {
  SEARCH_METHODS,
  SEARCH_MODES,
  type SearchMethod,
  type SearchMode,
  type SearchQuery,
} from './schema.ts'

/** Where a page ended, and how it was searched: the next one is of the same list. */
export type Place = {
  mode: SearchMode
  /** Null where no text was found. */
  method: SearchMethod | null
  /** When the first page was read. */
  asOf: Date
  /** As text, which keeps every digit. */
  score: string
  at: Date
  id: string
}

const CURSOR = 'search'
const TYPES = ['string', 'string', 'string', 'number', 'string', 'number', 'string'] as const
const NONE = 'none'

/** What a cursor belongs to. */
function digestOf(userId: string, { cursor: _, limit: __, ...query }: SearchQuery): string {
  return digestJson([userId, query])
}

export function writePlace(userId: string, query: SearchQuery, place: Place): string {
  const { mode, method, asOf, score, at, id } = place
  const digest = digestOf(userId, query)
  return encodeCursor(CURSOR, [digest, mode, method ?? NONE, asOf.getTime(), score, at.getTime(), id])
}

/** @throws invalid_input for the cursor of another query */
export function readPlace(userId: string, query: SearchQuery): Place | undefined {
  if (query.cursor === undefined) return undefined
  const [digest, mode, method, asOf, score, at, id] = decodeCursor(CURSOR, TYPES, query.cursor)
  const place = { asOf: new Date(asOf), score, at: new Date(at), id }
  if (
    digest !== digestOf(userId, query) ||
    !isOneOf(SEARCH_MODES, mode) ||
    !(method === NONE || isOneOf(SEARCH_METHODS, method)) ||
    !Number.isFinite(Number(score)) ||
    score.trim() === '' ||
    !isUuid(id) ||
    !isTime(place.asOf) ||
    !isTime(place.at)
  ) {
    throw badCursor()
  }
  return { mode, method: method === NONE ? null : method, ...place }
}

const isOneOf = <T extends string>(list: readonly T[], value: string): value is T =>
  (list as readonly string[]).includes(value)

// ids hold 48 bits of it
const isTime = (time: Date) => time.getTime() > -2e14 && time.getTime() < 2 ** 47
