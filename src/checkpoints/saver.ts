import type { RunnableConfig } from '@langchain/core/runnables'
import {
  BaseCheckpointSaver,
  type ChannelVersions,
  type Checkpoint,
  type CheckpointListOptions,
  type CheckpointMetadata,
  type CheckpointTuple,
  type DeltaChannelHistory,
  type PendingWrite,
  type SerializerProtocol,
} from '@langchain/langgraph-checkpoint'
import { ThreadbaseError } from '../core/errors.ts'
import type { Page } from '../core/pages.ts'
import type { Database } from '../db/database.ts'
import type { EncryptionOptions } from './codec.ts'
import type { Decoder } from './decode.ts'
import type { Encoder } from './element.ts'
import { type Known, type KnownLists, NOTHING_KNOWN } from './known.ts'
import type { Memo } from './memo.ts'
import { encodeCheckpoint, encodeWrites, type PutInput } from './put.ts'
import * as repo from './repo.ts'
import { dumpFilter } from './rows.ts'
import {
  invalid,
  type Place,
  readPlace,
  readUser,
  requireRoom,
  requireText,
  requireThread,
} from './run-config.ts'
import { isStock } from './serde.ts'
import { createShared, type Shared } from './shared.ts'
import { type ConfigOf, requireFormat, toHistories, toTuple } from './tuples.ts'
import {
  createUpkeep,
  type PruneOptions,
  type Removed,
  type StateThread,
  type Upkeep,
} from './upkeep/service.ts'
import { nextVersion } from './versions.ts'

/** How a checkpointer stores. */
export type SaverOptions = {
  /** Whose threads these are: a config has no say in it. */
  userId?: string
  /** The user of a config without `configurable.user_id`. Default: there is none, and such a config is refused. */
  defaultUserId?: string
  /** Default: LangGraph's own. Of another one each element of a list is stored on its own, and nothing is known of its form. */
  serde?: SerializerProtocol
  /** Default: values are stored as they are. */
  encryption?: EncryptionOptions
  /**
   * `reject`: a put whose parent got another child since it was read here is a `conflict`. Default `last-write-wins`:
   * both are stored, and the newest is what a thread continues from.
   */
  concurrency?: 'reject' | 'last-write-wins'
}

const FIRST_PAGE = 10
const MAX_PAGE = 100
const PAGE_BYTES = 8_000_000
const NOTHING_READ = { checkpoints: [], blobs: new Map(), begun: 0 }

/**
 * LangGraph's checkpointer on Threadbase's database. Checkpoints are kept by user, thread and namespace; the user is
 * that of `forUser`, else `configurable.user_id`.
 *
 * What a run changes in place after a put is noticed when a field of an element was replaced; a change deeper inside
 * only in the last 64 elements of a list, and in the values of channels that the run says it changed.
 */
export class ThreadbaseSaver extends BaseCheckpointSaver {
  readonly #forUser: Database['forUser']
  readonly #options: SaverOptions
  readonly #stock: boolean
  readonly #shared: Shared
  readonly #upkeep: Upkeep

  constructor(database: Pick<Database, 'forUser'>, options: SaverOptions = {}, shared?: Shared) {
    super(options.serde)
    this.#forUser = (userId) => database.forUser(userId)
    this.#options = options
    this.#stock = isStock(this.serde)
    this.#shared = shared ?? createShared(options.encryption)
    this.#upkeep = createUpkeep(database)
  }

  /**
   * Greater than the one before it, and never given twice: two branches share none. Mostly a text, though LangGraph types
   * a graph's checkpointer as one of numbers: it compares either, and computes with none.
   */
  override getNextVersion(current: string | number | undefined): number {
    return nextVersion(current) as string | number as number
  }

  /** Undefined when there is none, or the config names no thread. @throws invalid_input, unavailable */
  override async getTuple(config: RunnableConfig): Promise<CheckpointTuple | undefined> {
    const place = this.#place(config)
    const { userId, threadId, ns = '', id } = place
    if (threadId === undefined) return undefined
    const query = { userId, threadId, ns, id, limit: 1 }
    const read = await this.#read(query)
    const { blobs } = read
    const [found] = read.checkpoints
    if (found === undefined) return undefined
    const decoder = { ...this.#decoder(userId), memo: this.#memoOf(userId) }
    const tuple = await toTuple(found, { blobs, decoder, configOf: this.#configOf(config) })
    this.#knownOf(userId, threadId).add(blobs.keys())
    return tuple
  }

  /**
   * Newest first; all threads of the user when the config names none. Values are read page by page, while the
   * generator is asked for more.
   */
  override async *list(
    config: RunnableConfig,
    options: CheckpointListOptions = {},
  ): AsyncGenerator<CheckpointTuple> {
    const { userId, threadId, ns, id } = this.#place(config ?? {})
    const { limit, before, filter } = options
    const beforeId = before === undefined ? undefined : this.#place(before).id
    const query = { userId, threadId, ns, id, beforeId, ...(await dumpFilter(filter)) }
    const decoder = this.#decoder(userId)
    const configOf = this.#configOf(config)
    let left = limit ?? Number.POSITIVE_INFINITY
    let page = FIRST_PAGE
    let after: repo.Query['after']
    while (left > 0) {
      const size = Math.min(page, left)
      const read = await this.#read({ ...query, after, limit: size })
      const reading = { blobs: read.blobs, decoder, configOf }
      for (const found of read.checkpoints) yield await toTuple(found, reading)
      const last = read.checkpoints.at(-1)
      if (last === undefined || read.checkpoints.length < size) return
      after = { id: last.id, ns: last.ns, threadId: last.threadId }
      left -= size
      page = nextPageSize(page, read)
    }
  }

  /**
   * Stores a checkpoint in one statement, and of its values what the thread does not have yet. Without a parent only
   * the channels of `newVersions` have a value to store.
   * @throws invalid_input that names the field; conflict under `concurrency: 'reject'`
   */
  override async put(
    config: RunnableConfig,
    checkpoint: Checkpoint,
    metadata: CheckpointMetadata,
    newVersions: ChannelVersions = checkpoint.channel_versions,
  ): Promise<RunnableConfig> {
    const place = this.#place(config)
    const id = requireText(checkpoint.id, 'checkpoint.id')
    const key = { userId: place.userId, threadId: requireThread(place), ns: place.ns ?? '', id }
    requireRoom({ ...roomOf(key), 'checkpoint.id': id })
    requireFormat(checkpoint.v)
    const changed = new Set(Object.keys(newVersions))
    const input = { key, parentId: place.id, checkpoint, metadata, changed }
    const known = this.#knownOf(key.userId, key.threadId)
    let outcome = await this.#store(input, known)
    if (outcome === 'missing') {
      // another process removed what this one had stored: everything is sent again
      known.forget()
      outcome = await this.#store(input, NOTHING_KNOWN)
    }
    if (outcome === 'missing')
      throw new ThreadbaseError('unavailable', `checkpoint ${id} could not be stored whole`)
    if (outcome === 'conflict') throw behind(key.threadId, place.id)
    if (outcome === 'replaced') await this.#upkeep.sweep(key.userId, key.threadId)
    return this.#configOf(config)(key.threadId, key.ns, id)
  }

  async #store(input: PutInput, known: Known): Promise<repo.PutOutcome> {
    const { key, parentId } = input
    const { userId, threadId, ns } = key
    const encoder = this.#encoder(userId, known.listsOf(ns))
    const { row, blobs, expected, lists } = await encodeCheckpoint(encoder, input)
    const parent = { userId, threadId, ns, id: parentId }
    const children = this.#rejects ? this.#shared.children.find(parent) : null
    const outcome = await repo.putCheckpoint(this.#forUser(userId), row, blobs, expected, children)
    if (outcome === 'stored' || outcome === 'replaced') {
      const stored = this.#knownOf(userId, threadId)
      stored.add(blobs.map(({ hash }) => hash))
      stored.listsOf(ns).keep(lists)
    }
    return outcome
  }

  /** Stores the writes of a task in one statement; before or after their checkpoint. None when it was deleted. */
  override async putWrites(
    config: RunnableConfig,
    writes: PendingWrite[],
    taskId: string,
    taskPath = '',
  ): Promise<void> {
    const place = this.#place(config)
    const { userId, ns = '', id } = place
    const threadId = requireThread(place)
    if (id === undefined) throw invalid('configurable.checkpoint_id is missing', 'configurable.checkpoint_id')
    requireText(taskId, 'task id')
    requireText(taskPath, 'task path', true)
    requireRoom({
      ...roomOf({ userId, threadId, ns }),
      'configurable.checkpoint_id': id,
      'task id': taskId,
    })
    const rows = await encodeWrites(this.#decoder(userId), { ns, id, taskId }, writes)
    if (rows.length === 0) return
    await repo.putWrites(
      this.#forUser(userId),
      { userId, threadId, ns, id },
      { id: taskId, path: taskPath },
      rows,
    )
  }

  /** In one statement: the walk is done by the database. */
  override async getDeltaChannelHistory(options: DeltaQuery): Promise<Record<string, DeltaChannelHistory>> {
    const { userId, threadId, ns = '', id } = this.#place(options.config)
    const channels = [...new Set(options.channels)]
    const decoder = this.#decoder(userId)
    if (threadId === undefined || channels.length === 0) return toHistories(NOTHING_READ, channels, decoder)
    const query = { userId, threadId, ns, id, channels }
    return toHistories(await repo.readPath(this.#forUser(userId), query), channels, decoder)
  }

  /** Removes all of a thread. Writes to its checkpoints that come later are dropped. */
  override async deleteThread(threadId: string, options: UserOption = {}): Promise<void> {
    const userId = this.#userOf(options)
    const id = requireText(threadId, 'thread_id')
    await this.#upkeep.deleteThread(userId, id)
    this.#knownOf(userId, id).forget()
  }

  /**
   * Removes checkpoints that are older than `olderThanS` seconds and not among the newest `keepLatest` of their
   * namespace, and what only they used. What a DeltaChannel of a kept one is read through stays, out of sight.
   * @throws invalid_input
   */
  async prune(options: PruneOptions & UserOption = {}): Promise<Removed> {
    const userId = this.#userOf(options)
    return this.#forgetting(userId, await this.#upkeep.prune(userId, options))
  }

  /** Removes the checkpoints whose `metadata.run_id` is one of these, and what only they used. */
  async deleteForRuns(runIds: string[], options: UserOption = {}): Promise<Removed> {
    const userId = this.#userOf(options)
    return this.#forgetting(userId, await this.#upkeep.deleteForRuns(userId, runIds))
  }

  /** Copies all of a thread, inside the database. @throws not_found; conflict when the target has checkpoints */
  async copyThread(sourceThreadId: string, targetThreadId: string, options: UserOption = {}): Promise<void> {
    const source = requireText(sourceThreadId, 'source thread id')
    const target = requireText(targetThreadId, 'target thread id')
    await this.#upkeep.copyThread(this.#userOf(options), source, target)
  }

  /** The threads that have checkpoints, by id. */
  async listThreads(
    options: { limit?: number; cursor?: string } & UserOption = {},
  ): Promise<Page<StateThread>> {
    return this.#upkeep.listThreads(this.#userOf(options), options)
  }

  get #rejects(): boolean {
    return this.#options.concurrency === 'reject'
  }

  #place(config: RunnableConfig): Place {
    return readPlace(config, this.#options.userId, this.#options.defaultUserId)
  }

  #userOf({ userId }: UserOption): string {
    return readUser(this.#options.userId ?? userId ?? this.#options.defaultUserId)
  }

  #knownOf(userId: string, threadId: string): Known {
    return this.#shared.knownOf(userId, threadId)
  }

  #forgetting(userId: string, { threadIds, ...removed }: Removed & { threadIds: string[] }): Removed {
    for (const threadId of threadIds) this.#knownOf(userId, threadId).forget()
    return removed
  }

  #encoder(userId: string, known: KnownLists): Encoder {
    return { ...this.#decoder(userId), memo: this.#memoOf(userId), known }
  }

  #decoder(userId: string): Decoder {
    return { serde: this.serde, stock: this.#stock, codec: this.#shared.codecOf(userId) }
  }

  #memoOf(userId: string): Memo {
    return this.#shared.memoOf(this.#shared.codecOf(userId), this.serde, this.#stock)
  }

  /**
   * Who goes on from a checkpoint has read it, by itself or in a list; and who begins a namespace has found nothing in
   * it, as LangGraph does when it goes back to before a subgraph.
   */
  async #read(query: repo.Query): Promise<repo.Read> {
    const { userId, threadId, ns } = query
    const rejects = this.#rejects
    const read = await repo.readCheckpoints(this.#forUser(userId), query, { children: rejects })
    if (!rejects) return read
    const { children } = this.#shared
    for (const found of read.checkpoints) children.keep({ ...found, userId }, found.children)
    const isWhole = [query.id, query.filter, query.absent, query.after].every((part) => part === undefined)
    if (read.checkpoints.length === 0 && isWhole && threadId !== undefined && ns !== undefined)
      children.keep({ userId, threadId, ns, id: undefined }, read.begun)
    return read
  }

  /** With the user where the config named one, so that the config of an answer can be used as it is. */
  #configOf(config: RunnableConfig): ConfigOf {
    const userId = this.#options.userId === undefined ? config?.configurable?.user_id : undefined
    const user = userId === undefined ? {} : { user_id: userId }
    return (threadId, ns, id) => ({
      configurable: { ...user, thread_id: threadId, checkpoint_ns: ns, checkpoint_id: id },
    })
  }
}

type DeltaQuery = { config: RunnableConfig; channels: string[] }
type UserOption = {
  /** Where the checkpointer is nobody's. */
  userId?: string
}

const roomOf = ({ userId, threadId, ns }: Omit<repo.CheckpointKey, 'id'>) => ({
  'configurable.user_id': userId,
  'configurable.thread_id': threadId,
  'configurable.checkpoint_ns': ns,
})

function behind(threadId: string, parentId: string | undefined): ThreadbaseError {
  const message = `thread ${threadId} went on from checkpoint ${parentId ?? '(none)'} since it was read: read it again`
  return new ThreadbaseError('conflict', message, { threadId, parentId })
}

/** More at a time while they are small, so that few statements read many, and little is read in vain. */
function nextPageSize(size: number, { blobs }: repo.Read): number {
  let bytes = 0
  for (const { text, data } of blobs.values()) bytes += (text?.length ?? 0) + (data?.length ?? 0)
  if (bytes > PAGE_BYTES) return Math.max(1, Math.floor(size / 2))
  return bytes > PAGE_BYTES / 4 ? size : Math.min(MAX_PAGE, size * 2)
}
