import type { Operation, PutOperation } from '@langchain/langgraph-checkpoint'
import { ThreadbaseError } from '../../core/errors.ts'
import { encodeJsonb } from '../../core/json.ts'
import { invalid, requireText } from '../run-config.ts'
import { type Condition, readFilter } from './filter.ts'
import { pathRange, requireLabels, requirePlace, toPath } from './namespaces.ts'

/** A PutOperation with what this store has beside it. */
export type StorePut = PutOperation & {
  /** Seconds that the item lives; null for ever. Default: `ttl.defaultS` of the store. */
  ttlS?: number | null
}

/** What an operation is, checked; `at` is its place in the batch. */
export type Get = { at: number; path: string; key: string; namespace: string[] }
export type Search = {
  at: number
  range: Range
  conditions: Condition[]
  query: string | undefined
  limit: number
  offset: number
}
export type Put = {
  at: number
  path: string
  key: string
  namespace: string[]
  /** Undefined: to be removed. */
  item: { value: Record<string, unknown>; json: string; index: false | string[] | undefined } | undefined
  ttlS: number | null | undefined
}
export type List = {
  at: number
  conditions: { suffix: boolean; path: string[] }[]
  range: Range
  maxDepth: number | undefined
  limit: number
  offset: number
}
export type Range = ReturnType<typeof pathRange>

export type Batch = { gets: Get[]; searches: Search[]; puts: Put[]; lists: List[] }

const MAX_INT = 2_147_483_647
const ANY = '*'
// an item that outlives this needs no end
const MAX_TTL_S = 3_155_760_000

/**
 * The operations of a batch by kind; of several puts of one item only the last.
 * @throws invalid_input that names the field
 */
export function readBatch(userId: string, operations: readonly Operation[]): Batch {
  const batch: Batch = { gets: [], searches: [], puts: [], lists: [] }
  const puts = new Map<string, Put>()
  for (const [at, operation] of operations.entries()) {
    if ('namespacePrefix' in operation) batch.searches.push(readSearch(at, operation))
    else if ('value' in operation) {
      const put = readPut(at, userId, operation)
      puts.set(JSON.stringify([put.path, put.key]), put)
    } else if ('key' in operation) batch.gets.push(readGet(at, operation))
    else batch.lists.push(readList(at, operation))
  }
  batch.puts = [...puts.values()]
  return batch
}

function readGet(at: number, { namespace, key }: { namespace: string[]; key: string }): Get {
  return { at, namespace, path: toPath(namespace), key: requireText(key, 'key of the item', true) }
}

function readSearch(at: number, operation: Extract<Operation, { namespacePrefix: unknown }>): Search {
  const { namespacePrefix, filter, query, limit = 10, offset = 0 } = operation
  requireLabels(namespacePrefix, 'namespacePrefix')
  if (query !== undefined && query !== null && typeof query !== 'string')
    throw invalid('query must be a text', 'query')
  return {
    at,
    range: pathRange(namespacePrefix),
    conditions: readFilter(filter),
    // an empty one is none, as with LangGraph's own store
    query: query || undefined,
    limit: readCount(limit, 'limit'),
    offset: readCount(offset, 'offset'),
  }
}

function readPut(at: number, userId: string, operation: StorePut): Put {
  const { namespace, value, index, ttlS } = operation
  const { path, key } = readGet(at, operation)
  if (value === null) return { at, namespace, path, key, item: undefined, ttlS: undefined }
  if (typeof value !== 'object' || Array.isArray(value))
    throw invalid('value must be an object, or null', 'value')
  requirePlace(userId, path, key)
  if (index !== undefined && index !== null && index !== false && !Array.isArray(index))
    throw invalid('index must be false or an array of paths', 'index')
  if (ttlS !== undefined && ttlS !== null) readTtl(ttlS, 'ttlS')
  return { at, namespace, path, key, ttlS, item: { value, json: toJson(value), index: index ?? undefined } }
}

/** @throws invalid_input that names the field */
export function readTtl(ttlS: number, field: string): number {
  if (typeof ttlS === 'number' && ttlS > 0 && ttlS <= MAX_TTL_S) return ttlS
  throw invalid(`${field} must be a number of seconds above 0 and up to ${MAX_TTL_S}`, field)
}

function toJson(value: object): string {
  let json: string
  try {
    json = encodeJsonb(value)
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause)
    throw new ThreadbaseError(
      'invalid_input',
      `value cannot be stored: ${reason}`,
      { field: 'value' },
      { cause },
    )
  }
  if (json.startsWith('{')) return json
  throw invalid('value must be an object in its JSON form', 'value')
}

function readList(at: number, operation: Extract<Operation, { limit: number; offset: number }>): List {
  const { matchConditions = [], maxDepth, limit = 100, offset = 0 } = operation
  if (maxDepth !== undefined && (!Number.isInteger(maxDepth) || maxDepth < 1 || maxDepth > MAX_INT))
    throw invalid('maxDepth must be a whole number above 0', 'maxDepth')
  const conditions = matchConditions.map(({ matchType, path }) => {
    if (matchType !== 'prefix' && matchType !== 'suffix')
      throw invalid(`matchType must be prefix or suffix, not ${String(matchType)}`, 'matchConditions')
    requireLabels(path, 'path of a matchCondition')
    return { suffix: matchType === 'suffix', path }
  })
  const prefix = conditions.find(({ suffix }) => !suffix)?.path ?? []
  const fixed = prefix.includes(ANY) ? prefix.slice(0, prefix.indexOf(ANY)) : prefix
  return {
    at,
    conditions,
    range: pathRange(fixed),
    maxDepth,
    limit: readCount(limit, 'limit'),
    offset: readCount(offset, 'offset'),
  }
}

function readCount(value: unknown, field: string): number {
  if (Number.isInteger(value) && (value as number) >= 0) return Math.min(value as number, MAX_INT)
  if (value === Number.POSITIVE_INFINITY) return MAX_INT
  throw invalid(`${field} must be a whole number that is not negative`, field)
}
