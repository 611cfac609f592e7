import { isThreadbaseError, ThreadbaseError } from '../core/errors.ts'
import { toStorableText } from '../core/json.ts'
import { type Scope, userOf } from '../core/scope.ts'
import { parseInput } from '../core/validate.ts'
import type { Database } from '../db/database.ts'
import { isSqlState } from '../db/errors.ts'
import type { Embedder } from '../embeddings/embedder.ts'
import { type Place, readPlace, writePlace } from './cursor.ts'
import { createQueryVectors } from './meaning/query-vectors.ts'
import type { Meaning } from './meaning/repo.ts'
import { readQuery, type TextQuery } from './query.ts'
import * as repo from './repo.ts'
import { type SearchHit, type SearchMethod, type SearchMode, type SearchPage, SearchQuery } from './schema.ts'
import { snippetOf, toSnippet, wordsLike } from './snippet.ts'
import type { Filters, Trigrams } from './text/repo.ts'
import type { Vectors } from './vectors/service.ts'

export { type ReindexOptions, type ReindexReport, readWordState, reindexWords } from './language/service.ts'
export { prepareSearch } from './prepare.ts'
export { createTrigramFinder } from './trigrams/service.ts'

export type SearchService = ReturnType<typeof createSearchService>

export type SearchOptions = {
  /** The model of the stored embeddings; undefined: there is no search by meaning. */
  embedder?: Embedder | undefined
  vectors: Pick<Vectors, 'space' | 'isLoss'>
  /** The extension pg_trgm; undefined: without it nothing is found by how it is spelt. */
  trigrams: () => Promise<Trigrams | undefined>
  /** Up to how many messages of a user are compared one by one, which is exact. Default 10,000. */
  exactUpTo?: number
}

/** What was found, before it is shown. */
type Found = {
  hits: repo.RawHit[]
  mode: SearchMode
  method: SearchMethod | null
  degraded: string | null
  /** From before the rows were read, but not from before a model took its time. */
  asOf: Date
}
/** What is looked for. */
type Wanted = {
  parsed: TextQuery
  text: string
  filters: Filters
  page: repo.PageOptions
  /** Of the page before; undefined on the first. */
  place: Place | undefined
}

/** A function that is not there; a schema that the role may not use. */
const OUT_OF_REACH = ['42883', '42501']
const NOT_ALLOWED = '42501'
const EXACT_UP_TO = 10_000
// What is pasted is found by its words: the rest compares every row with every part of it.
const MAX_TERMS = 16
const MAX_LOOKED_FOR = 500
/** A hybrid search that has waited so long for the vector of its query does without. */
const PATIENCE_MS = 5_000

/** Search in what a user's threads hold. */
export function createSearchService(database: Pick<Database, 'forUser' | 'rls'>, options: SearchOptions) {
  const { vectors, exactUpTo = EXACT_UP_TO } = options
  const vectorOf = createQueryVectors()
  const db = ({ filters }: Wanted) => database.forUser(filters.userId)

  async function findText(wanted: Wanted, degraded: string | null): Promise<Found> {
    const asOf = new Date()
    const trigrams = await options.trigrams()
    for (const method of methodsOf(wanted, trigrams !== undefined)) {
      const text = { ...wanted.parsed, text: wanted.text, method, trigrams }
      const hits = await repo.searchText(db(wanted), text, wanted.filters, wanted.page).catch((error) => {
        // the extension was there a minute ago, or is not for the role of users
        if (method === 'similar' && isSqlState(error, ...OUT_OF_REACH)) return []
        throw error
      })
      if (hits.length > 0) return { hits, mode: 'text', method, degraded, asOf }
    }
    return { hits: [], mode: 'text', method: wanted.place?.method ?? null, degraded, asOf }
  }

  /** @throws unavailable when nothing can be compared with the query */
  async function readMeaning({ text, page }: Wanted, signal?: AbortSignal): Promise<Meaning> {
    const { embedder } = options
    if (embedder === undefined) throw unavailable('no model makes embeddings here: EMBEDDING_MODEL is none')
    const space = await vectors.space()
    if (!space.available) throw unavailable('the database has no vectors: the extension vector is missing')
    const vector = await vectorOf(embedder, text, signal).catch((error: unknown) => {
      throw withoutVector(error)
    })
    const { limit: depth, after } = page
    return { vector, model: embedder.model, space, exactUpTo, depth, after }
  }

  async function findMeaning(wanted: Wanted): Promise<Found> {
    const meaning = await readMeaning(wanted)
    const asOf = new Date()
    const text = { ...wanted.parsed, text: wanted.text, method: 'any' as const, trigrams: undefined }
    const hits = await repo.searchMeaning(db(wanted), text, meaning, wanted.filters, wanted.page)
    return { hits, mode: 'semantic', method: null, degraded: null, asOf }
  }

  async function findBoth(wanted: Wanted): Promise<Found> {
    const meaning = await readMeaning(wanted, AbortSignal.timeout(PATIENCE_MS))
    const trigrams = await options.trigrams()
    const methods = methodsOf(wanted, trigrams !== undefined).filter(
      // what is no code is found by its meaning, which is better than by its spelling
      (method) => wanted.parsed.hasCodes || method === 'words' || method === 'any',
    )
    // the list of meanings is the same whatever the texts are found by
    let found: Found = { hits: [], mode: 'hybrid', method: null, degraded: null, asOf: new Date() }
    for (const method of methods) {
      const text = { ...wanted.parsed, text: wanted.text, method, trigrams }
      const { hits, hasText } = await repo.searchBoth(
        db(wanted),
        text,
        { ...meaning, after: undefined },
        wanted.filters,
        wanted.page,
      )
      found = { ...found, hits, method: hasText ? method : null }
      if (hasText) break
    }
    return found
  }

  /** By both where that is to be had, else by words, saying so unless nobody expected more. */
  async function findBothOrText(wanted: Wanted, asked: SearchMode | undefined): Promise<Found> {
    try {
      return await findBoth(wanted)
    } catch (error) {
      // the next page of a list is of that list or none
      if (wanted.place !== undefined || !isThreadbaseError(error) || !isWithoutMeaning(error)) throw error
      const isExpected = asked === undefined && options.embedder === undefined
      return findText(wanted, isExpected ? null : `searched by words alone: ${error.message}`)
    }
  }

  const isWithoutMeaning = (error: ThreadbaseError) =>
    error.details?.reason === NO_MEANING || vectors.isLoss(error) || isSqlState(error, NOT_ALLOWED)

  async function find(wanted: Wanted, asked: SearchMode | undefined): Promise<Found> {
    const mode = wanted.place?.mode ?? asked
    if (mode === 'text') {
      const isLess = asked !== 'text' && (asked !== undefined || options.embedder !== undefined)
      return findText(wanted, isLess ? 'searched by words alone, as the page before' : null)
    }
    if (mode !== 'semantic') return findBothOrText(wanted, asked)
    try {
      return await findMeaning(wanted)
    } catch (error) {
      if (vectors.isLoss(error)) throw unavailable('the database has no vectors any more')
      if (isSqlState(error, NOT_ALLOWED))
        throw unavailable('the role of DATABASE_RLS_ROLE may not use the extension vector')
      throw error
    }
  }

  return {
    /**
     * Messages and results of sessions in which the query is found, best first, newest first among equals; 20 a page,
     * 100 at most. Those of archived threads are left out unless asked for.
     * @throws invalid_input for a query that is empty or longer than 10,000 characters, and for the cursor of another
     *   query; unavailable for `semantic` where nothing makes embeddings or keeps them, or the model does not answer
     */
    async messages(scope: Scope, input: SearchQuery): Promise<SearchPage> {
      const userId = userOf(scope)
      const query = parseInput(SearchQuery, withTextDates(input), 'query') as SearchQuery
      const text = toStorableText(query.q).trim()
      if (text === '') throw new ThreadbaseError('invalid_input', 'query.q must not be empty', { field: 'q' })
      const limit = query.limit ?? 20
      const place = readPlace(userId, query)
      const parsed = readQuery(text)
      const { without } = parsed
      const asOf = place?.asOf ?? null
      const filters = toFilters(userId, query, { isBound: database.rls === 'enforce', without, asOf })
      const wanted = {
        parsed,
        text,
        filters,
        page: { limit: limit + 1, after: place },
        place,
      }
      const { hits, mode, method, degraded, ...found } = await find(wanted, query.mode)
      const shown = hits.slice(0, limit)
      const items = shown.map((hit) => show(hit, wanted.parsed))
      const last = hits.length > limit ? shown.at(-1)?.key : undefined
      const page = { items, mode, method, degraded }
      if (last === undefined) return page
      return {
        ...page,
        nextCursor: writePlace(userId, query, { mode, method, asOf: asOf ?? found.asOf, ...last }),
      }
    },
  }
}

const NO_MEANING = 'no search by meaning'

function unavailable(message: string): ThreadbaseError {
  return new ThreadbaseError('unavailable', message, { reason: NO_MEANING })
}

/** Why the query has no vector. What an application's own model fails with may be anything. */
function withoutVector(cause: unknown): ThreadbaseError {
  const isRefused = isThreadbaseError(cause, 'invalid_input')
  const message = isThreadbaseError(cause) ? cause.message : 'the embedding model failed'
  const details = { ...(isThreadbaseError(cause) && cause.details), reason: NO_MEANING }
  return new ThreadbaseError(isRefused ? 'invalid_input' : 'unavailable', message, details, { cause })
}

/** The ways to look for a text, in order; on a later page the one that found the first. */
function methodsOf({ parsed, text, place }: Wanted, hasTrigrams: boolean): SearchMethod[] {
  if (place !== undefined) return [place.method ?? 'words']
  const terms = parsed.alternatives.reduce((sum, one) => sum + one.terms.length + one.without.length, 0)
  if (terms > MAX_TERMS || text.length > MAX_LOOKED_FOR) return ['words', 'any']
  const similar: SearchMethod[] = hasTrigrams ? ['similar'] : []
  return parsed.hasCodes
    ? ['words', 'substring', 'any', ...similar]
    : ['words', 'any', 'substring', ...similar]
}

function show({ excerpt, marking, key: _, ...hit }: repo.RawHit, parsed: TextQuery): SearchHit {
  if (marking === null) return { ...hit, snippet: toSnippet(excerpt) }
  const terms = parsed.alternatives.flatMap((alternative) => alternative.terms)
  return {
    ...hit,
    snippet: snippetOf(excerpt, marking === 'similar' ? wordsLike(excerpt, terms) : terms),
  }
}

function toFilters(
  userId: string,
  query: SearchQuery,
  known: Pick<Filters, 'isBound' | 'without' | 'asOf'>,
): Filters {
  const { threadId, kind, role, since, until, includeArchived = false } = query
  const time = (value: string | Date | undefined) => (value === undefined ? undefined : new Date(value))
  return {
    userId,
    ...known,
    threadId,
    kind,
    role,
    since: time(since),
    until: time(until),
    includeArchived,
  }
}

/** Times as RFC 3339 texts, which the schema checks. */
function withTextDates(input: SearchQuery): SearchQuery {
  if (typeof input !== 'object' || input === null) return input
  const { since, until, ...rest } = input
  const toText = (value: string | Date) =>
    value instanceof Date && !Number.isNaN(value.getTime()) ? value.toISOString() : value
  return {
    ...rest,
    ...(since === undefined ? {} : { since: toText(since) }),
    ...(until === undefined ? {} : { until: toText(until) }),
  }
}
