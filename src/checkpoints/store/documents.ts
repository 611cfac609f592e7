import { ThreadbaseError } from '../../core/errors.ts'
import { newId } from '../../core/ids.ts'
import { encodeJsonb } from '../../core/json.ts'
import type { Logger } from '../../core/log.ts'
import { type Scope, userOf } from '../../core/scope.ts'
import { invalid, requireText } from '../run-config.ts'
import { type Condition, readFilter } from './filter.ts'
import { pathRange, requirePlace, toPath } from './namespaces.ts'
import type { Search } from './operations.ts'
import * as repo from './repo.ts'
import type { StoreDatabase } from './shared.ts'
import { mayHaveMissed, nearest, prepareSpace, type Space } from './vectors/service.ts'

/** A text with a vector that the application made of it. */
export type NewDocument = {
  /** Unique in its collection; a document that is there is replaced. Default: a new one. */
  id?: string
  pageContent: string
  metadata?: Record<string, unknown>
  /** All of a collection have one number of numbers; those that have another are not compared. */
  vector: readonly number[]
}

export type FoundDocument = {
  id: string
  pageContent: string
  metadata: Record<string, unknown>
  /** The cosine of the angle between the vectors: 1 is the nearest there is. */
  score: number
  /** Where they were asked for. */
  vector?: number[]
}

/** What must hold of the fields of `metadata`: a value each, or operators, such as `{ year: { $gte: 2020 } }`. */
export type DocumentFilter = Record<string, unknown>
export type DocumentQuery = {
  /** Default 4. */
  limit?: number
  filter?: DocumentFilter
  withVectors?: boolean
}
/** One of them. */
export type DocumentChoice = { ids?: readonly string[]; filter?: DocumentFilter; all?: boolean }

export type DocumentService = ReturnType<typeof createDocumentService>

/** The first label of the namespaces: a collection is items of the store in a namespace of its own. */
const ROOT = 'langchain'
const CONTENT = 'pageContent'
const METADATA = 'metadata'
// of a statement
const PORTION = 500
const MAX_DIMS = 16_000
const MAX_LIMIT = 10_000

/**
 * Documents of a user in collections, found by vectors. They are items of LangGraph's store, in the namespace
 * `langchain`, name of the collection. Every function takes the scope first, then the collection.
 */
export function createDocumentService(database: StoreDatabase, log: Logger) {
  const spaces = new Map<number, Promise<Space>>()
  /** How vectors of a length are compared; made ready for the first of them. */
  const spaceOf = (dims: number): Promise<Space> => {
    const known = spaces.get(dims)
    if (known !== undefined) return known
    const space = prepareSpace(database, { dims, exactUpTo: undefined }, log)
    spaces.set(dims, space)
    // another time it may be there
    space.catch(() => spaces.delete(dims))
    return space
  }

  return {
    /**
     * Stores documents, 500 at a time, in order.
     * @returns their ids @throws invalid_input that names the field
     */
    async put(scope: Scope, collection: string, documents: readonly NewDocument[]): Promise<string[]> {
      const userId = userOf(scope)
      const namespace = namespaceOf(collection)
      const dims = documents[0]?.vector?.length ?? 0
      const rows = documents.map((document, i) => toRow(userId, namespace, document, { at: i, dims }))
      // of several with one id the last holds
      const byKey = new Map(rows.map((row) => [row.key, row]))
      const unique = [...byKey.values()]
      for (let at = 0; at < unique.length; at += PORTION)
        await repo.putItems(database.forUser(userId), userId, unique.slice(at, at + PORTION), dims)
      return rows.map(({ key }) => key)
    },

    /** The documents nearest to a vector, the nearest first. @throws invalid_input that names the field */
    async search(
      scope: Scope,
      collection: string,
      vector: readonly number[],
      { limit = 4, filter, withVectors = false }: DocumentQuery = {},
    ): Promise<FoundDocument[]> {
      const userId = userOf(scope)
      const db = database.forUser(userId)
      const namespace = namespaceOf(collection)
      const numbers = requireVector(vector, vector?.length, 'vector')
      if (!Number.isInteger(limit) || limit < 0 || limit > MAX_LIMIT)
        throw invalid(`limit must be a whole number from 0 to ${MAX_LIMIT}`, 'limit')
      const conditions = readFilter(filter, METADATA)
      const search: Search = {
        ...{ at: 0, range: pathRange(namespace), conditions, query: undefined },
        ...{ limit, offset: 0 },
      }
      const read = async (space: Space) => {
        const rows = await repo.searchItems(db, userId, [nearest(userId, search, numbers, space)], false)
        return { many: rows[0]?.many ?? null, found: rows.filter(({ key }) => key !== null) }
      }
      const space = await spaceOf(numbers.length)
      let { found, many } = await read(space)
      if (mayHaveMissed(search, found.length, many, space.exactUpTo))
        found = (await read({ ...space, exactUpTo: Number.POSITIVE_INFINITY })).found
      const keys = found.map(({ key }) => key)
      const vectors = withVectors ? await repo.findVectors(db, userId, toPath(namespace), keys) : undefined
      return found.map((row) => ({
        ...toDocument(row),
        ...(vectors && { vector: vectors.get(row.key) ?? [] }),
      }))
    },

    /**
     * Removes the documents with these ids, those that match a filter, or all of the collection.
     * @returns how many @throws invalid_input when nothing says which
     */
    async delete(scope: Scope, collection: string, choice: DocumentChoice): Promise<number> {
      const userId = userOf(scope)
      const path = toPath(namespaceOf(collection))
      const which = readChoice(choice)
      return repo.deleteItems(database.forUser(userId), userId, path, which)
    },
  }
}

function namespaceOf(collection: string): string[] {
  return [ROOT, requireText(collection, 'name of the collection', false)]
}

function toRow(
  userId: string,
  namespace: string[],
  { id, pageContent, metadata = {}, vector }: NewDocument,
  { at, dims }: { at: number; dims: number },
): repo.ItemRow {
  const path = toPath(namespace)
  const key = id === undefined ? newId() : requireText(id, `id of document ${at}`, true)
  requirePlace(userId, path, key)
  if (typeof pageContent !== 'string')
    throw invalid(`pageContent of document ${at} must be a text`, 'pageContent')
  if (typeof metadata !== 'object' || metadata === null || Array.isArray(metadata))
    throw invalid(`metadata of document ${at} must be an object`, 'metadata')
  return {
    ...{ path, key, namespace, value: toJson({ [CONTENT]: pageContent, [METADATA]: metadata }, at) },
    ...{ words: null, ttlS: null, vectors: [requireVector(vector, dims, `vector of document ${at}`)] },
  }
}

function toJson(value: object, at: number): string {
  try {
    return encodeJsonb(value)
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause)
    throw new ThreadbaseError(
      'invalid_input',
      `document ${at} cannot be stored: ${reason}`,
      { field: 'metadata' },
      { cause },
    )
  }
}

function requireVector(vector: unknown, dims: number | undefined, name: string): number[] {
  const isList = Array.isArray(vector) || vector instanceof Float32Array || vector instanceof Float64Array
  if (!isList || vector.length < 1 || vector.length > MAX_DIMS)
    throw invalid(`${name} must have 1 to ${MAX_DIMS} numbers`, 'vector')
  if (vector.length !== dims)
    throw invalid(`${name} has ${vector.length} numbers, others of the call have ${dims}`, 'vector')
  const numbers = Array.from(vector as number[])
  // what float4 holds
  if (!numbers.every((value) => Number.isFinite(Math.fround(value))))
    throw invalid(`${name} has what is no number`, 'vector')
  return numbers
}

function readChoice({ ids, filter, all = false }: DocumentChoice): {
  keys: readonly string[] | undefined
  conditions: Condition[]
} {
  if ([ids !== undefined, filter !== undefined, all].filter(Boolean).length !== 1)
    throw invalid('which documents to delete is said by ids, a filter or all, one of them', 'ids')
  if (ids !== undefined && !Array.isArray(ids)) throw invalid('ids must be an array', 'ids')
  const conditions = readFilter(filter, METADATA)
  // {} holds of every document
  if (filter !== undefined && conditions.length === 0)
    throw invalid('filter must have a field: all is said by `all`', 'filter')
  return { keys: ids?.map((id) => requireText(id, 'id of a document', true)), conditions }
}

/** Whoever writes to the namespace through the store may have put there anything. */
function toDocument({ key, value, score }: repo.Found): FoundDocument {
  const { [CONTENT]: text, [METADATA]: fields } = value
  return {
    id: key,
    pageContent: typeof text === 'string' ? text : '',
    metadata: typeof fields === 'object' && fields !== null ? (fields as Record<string, unknown>) : {},
    // a vector without length is near to none
    score: score === null || Number.isNaN(score) ? 0 : score,
  }
}
