import { AsyncLocalStorageProviderSingleton } from '@langchain/core/singletons'
import {
  BaseStore,
  type GetOperation,
  type Item,
  type ListNamespacesOperation,
  type Operation,
  type OperationResults,
  type SearchItem,
  type SearchOperation,
} from '@langchain/langgraph-checkpoint'
import { toStorableText } from '../../core/json.ts'
import { userOf } from '../../core/scope.ts'
import type { Db } from '../../db/schema.ts'
import { invalid } from '../run-config.ts'
import { readFields, textsOf } from './embedding.ts'
import { requireOwnRoot } from './namespaces.ts'
import { type Get, type List, type Put, readBatch, type Search, type StorePut } from './operations.ts'
import * as repo from './repo.ts'
import { createShared, type Shared, type StoreDatabase, type StoreSettings } from './shared.ts'
import { valuesAt, wordsOf } from './texts.ts'
import { mayHaveMissed, nearest, type Space } from './vectors/service.ts'

/** How a store keeps and finds items. */
export type StoreOptions = StoreSettings & {
  /** Whose items these are: neither a call nor a run has a say in it. */
  userId?: string
  /** The user of a call that names none, outside of a run that does. Default: such a call is refused. */
  defaultUserId?: string
}

/** For whom a call is made, with a store that is nobody's. */
export type StoreCall = { userId?: string }

// of a text search: beyond it PostgreSQL's own limits come near
const MAX_WORDS = 100_000
const MAX_QUERY = 10_000
/** How many searches and conditions are one statement. */
const SEARCH_PORTION = 1_000

/**
 * LangGraph's long-term memory on Threadbase's database. Items are kept by user, namespace and key. The user is that
 * of `forUser`, else `userId` of the call, else `configurable.user_id` of the node that makes the call.
 *
 * A graph for one user is compiled with `forUser(id).store`; a graph for all gets it with each run:
 *
 *     await graph.invoke(input, { configurable: { thread_id }, store: tb.forUser(id).store })
 *
 * All operations throw invalid_input that names the field, and unavailable.
 */
export class ThreadbaseStore extends BaseStore {
  readonly #database: StoreDatabase
  readonly #options: StoreOptions
  readonly #shared: Shared

  constructor(database: StoreDatabase, options: StoreOptions = {}, shared?: Shared) {
    super()
    this.#database = database
    this.#options = options
    this.#shared = shared ?? createShared(database, options)
  }

  /**
   * Each kind of operation is one statement. Reads see what was there before the batch; of several puts of one item the
   * last holds.
   */
  override async batch<Op extends Operation[]>(
    operations: Op,
    call: StoreCall = {},
  ): Promise<OperationResults<Op>> {
    const userId = this.#userOf(call)
    const { gets, searches, puts, lists } = readBatch(userId, operations)
    const db = this.#database.forUser(userId)
    const results: unknown[] = new Array(operations.length).fill(undefined)
    // what a model has to say is asked before anything is stored
    const rows = await this.#toRows(puts)
    await Promise.all([
      gets.length > 0 && this.#get(db, userId, gets, results),
      searches.length > 0 && this.#search(db, userId, searches, results),
      lists.length > 0 && list(db, userId, lists, results),
    ])
    if (rows.length > 0) await repo.putItems(db, userId, rows, this.#shared.embedder?.dims ?? 0)
    this.#shared.sweepNowAndThen()
    return results as OperationResults<Op>
  }

  /** Null when there is none. */
  override async get(namespace: string[], key: string, call?: StoreCall): Promise<Item | null> {
    const [item] = await this.batch<[GetOperation]>([{ namespace, key }], call)
    return item
  }

  /**
   * Items at the prefix and below it. With a query those that match it, the best first: by meaning when the store has
   * embeddings, else by words. Without one the newest first.
   */
  override async search(
    namespacePrefix: string[],
    options: Omit<SearchOperation, 'namespacePrefix'> & StoreCall = {},
  ): Promise<SearchItem[]> {
    const { userId, ...search } = options
    const [found] = await this.batch<[SearchOperation]>([{ namespacePrefix, ...search }], { userId })
    return found
  }

  /** @param index paths of what a search finds the item by, or false for nothing; default: `index.fields` of the store */
  override async put(
    namespace: string[],
    key: string,
    value: Record<string, unknown>,
    index?: false | string[],
    options: StoreCall & Pick<StorePut, 'ttlS'> = {},
  ): Promise<void> {
    const { userId, ttlS } = options
    requireOwnRoot(namespace)
    const put: StorePut = { namespace, key, value, index, ttlS }
    await this.batch([put], { userId })
  }

  /** Nothing happens when there is none. */
  override async delete(namespace: string[], key: string, call?: StoreCall): Promise<void> {
    await this.batch([{ namespace, key, value: null }], call)
  }

  /** In order; with `maxDepth` cut after so many labels, each once. `*` in a prefix or suffix is any label. */
  override async listNamespaces(
    options: NonNullable<Parameters<BaseStore['listNamespaces']>[0]> & StoreCall = {},
  ): Promise<string[][]> {
    const { prefix, suffix, maxDepth, limit = 100, offset = 0, userId } = options
    const matchConditions = [
      ...(prefix === undefined ? [] : [{ matchType: 'prefix' as const, path: prefix }]),
      ...(suffix === undefined ? [] : [{ matchType: 'suffix' as const, path: suffix }]),
    ]
    const [found] = await this.batch<[ListNamespacesOperation]>(
      [{ matchConditions, maxDepth, limit, offset }],
      { userId },
    )
    return found
  }

  /** Removes what has expired, of all users; reads find none of it in any case. @returns how many items */
  sweepExpired(): Promise<number> {
    return this.#shared.sweep()
  }

  #userOf({ userId }: StoreCall): string {
    const { userId: bound, defaultUserId } = this.#options
    const user = bound ?? userId ?? userOfRun() ?? defaultUserId
    if (user !== undefined) return userOf({ userId: user as string })
    throw invalid(
      'the user is missing: take the store of forUser(id), which a run takes as `store` beside `configurable`, or name userId in the call',
      'userId',
    )
  }

  async #get(db: Db, userId: string, gets: Get[], results: unknown[]): Promise<void> {
    for (const { at } of gets) results[at] = null
    const found = await repo.getItems(db, userId, gets, this.#shared.refresh)
    for (const row of found) results[row.op] = toItem(row)
  }

  async #search(db: Db, userId: string, searches: Search[], results: unknown[]): Promise<void> {
    const { embedder, refresh } = this.#shared
    for (const { at } of searches) results[at] = []
    const queries = searches.flatMap(({ query }) => query ?? [])
    const vectors = await embedder?.embedQueries(queries)
    const space = queries.length > 0 && embedder !== undefined ? await this.#shared.space() : undefined
    const branchOf = (search: Search, inSpace = space) => {
      if (search.query === undefined) return repo.newest(userId, search)
      const vector = vectors?.get(search.query)
      if (vector !== undefined && inSpace !== undefined) return nearest(userId, search, vector, inSpace)
      return repo.byWords(userId, search, toStorableText(search.query).slice(0, MAX_QUERY))
    }
    const read = async (asked: Search[], inSpace?: Space) => {
      const short: Search[] = []
      for (const some of portionsOf(asked)) {
        const branches = some.map((search) => branchOf(search, inSpace))
        const rows = await repo.searchItems(db, userId, branches, refresh)
        short.push(...some.filter((search) => fill(search, rows, results, inSpace?.exactUpTo)))
      }
      return short
    }
    const short = await read(searches, space)
    // the index gave up too early for these
    if (short.length > 0 && space !== undefined)
      await read(short, { ...space, exactUpTo: Number.POSITIVE_INFINITY })
  }

  async #toRows(puts: Put[]): Promise<repo.ItemRow[]> {
    const { embedder, fields, defaultTtlS } = this.#shared
    const fieldsOf = ({ item }: Put) => {
      if (item === undefined || item.index === false) return []
      return item.index === undefined ? fields : readFields(item.index, 'index')
    }
    const texts = puts.map((put) => (embedder === undefined ? [] : textsOf(put.item?.value, fieldsOf(put))))
    const vectors = await embedder?.embed(texts.flat())
    return puts.map((put, i) => {
      const { namespace, path, key, item, ttlS } = put
      return {
        ...{ namespace, path, key, value: item?.json ?? null },
        ttlS: ttlS === undefined ? defaultTtlS : ttlS,
        words: embedder === undefined && item !== undefined ? toWords(item.value, fieldsOf(put)) : null,
        vectors: (texts[i] ?? []).flatMap((text) => [vectors?.get(text) ?? []]),
      }
    })
  }
}

/**
 * What runs in a node can see the node's config. The store that LangGraph itself hands to a node calls from outside of
 * it, in batches, and sees nothing: it has to be a user's.
 */
function userOfRun(): unknown {
  return AsyncLocalStorageProviderSingleton.getRunnableConfig()?.configurable?.user_id
}

function toWords(value: unknown, fields: ReturnType<typeof readFields>): string | null {
  const words = fields.flatMap((field) => valuesAt(value, field).flatMap(wordsOf))
  return words.length === 0 ? null : toStorableText(words.join('\n').slice(0, MAX_WORDS))
}

async function list(db: Db, userId: string, lists: List[], results: unknown[]): Promise<void> {
  for (const { at } of lists) results[at] = []
  const found = await repo.listNamespaces(db, userId, lists)
  for (const { op, namespace } of found) (results[op] as string[][]).push(namespace)
}

/** A statement has 65,535 parameters at most, and takes more than its share of time to plan long before that. */
function portionsOf(searches: Search[]): Search[][] {
  const portions: Search[][] = []
  let room = 0
  for (const search of searches) {
    room -= 1 + search.conditions.length
    if (room < 0) {
      portions.push([])
      room = SEARCH_PORTION
    }
    portions.at(-1)?.push(search)
  }
  return portions
}

/** Puts what a search found where it belongs. @returns whether the index may have missed some of it */
function fill(
  search: Search,
  rows: Awaited<ReturnType<typeof repo.searchItems>>,
  results: unknown[],
  exactUpTo = Number.POSITIVE_INFINITY,
): boolean {
  const { at } = search
  const own = rows.filter(({ op }) => op === at)
  const found = own.filter(({ key }) => key !== null)
  results[at] = found.map((row) => ({ ...toItem(row), score: toScore(row) }))
  const [{ many = null } = {}] = own
  return mayHaveMissed(search, found.length, many, exactUpTo)
}

function toItem({ namespace, key, value, created_at, updated_at }: repo.Found): Item {
  return { namespace, key, value, createdAt: created_at, updatedAt: updated_at }
}

/** A vector without length is like none, as LangGraph's own store has it. */
function toScore({ score }: repo.Found): number | undefined {
  if (score === null) return undefined
  return Number.isNaN(score) ? 0 : score
}
