import type { RunnableConfig } from '@langchain/core/runnables'
import {
  BaseCheckpointSaver,
  type ChannelVersions,
  type Checkpoint,
  type CheckpointListOptions,
  type CheckpointMetadata,
  type CheckpointPendingWrite,
  type CheckpointTuple,
  compareWritesSortKeys,
  type DeltaChannelHistory,
  maxChannelVersion,
  type PendingWrite,
  type SerializerProtocol,
  TASKS,
  WRITES_IDX_MAP,
  writesSortKey,
} from '@langchain/langgraph-checkpoint'
import { ThreadbaseError } from '../core/errors.ts'
import type { Page } from '../core/pages.ts'
import type { Database } from '../db/database.ts'
import type { EncryptionOptions } from './codec.ts'
import { type Decoder, readCheckpoint, readMetadata, recordPlace, writePlace } from './decode.ts'
import { type Encoder, planCheckpoint } from './encode.ts'
import { type Known, NOTHING_KNOWN } from './known.ts'
import type { Memo } from './memo.ts'
import * as repo from './repo.ts'
import { dumpFilter, dumpMetadata, toBlobRows, toTime } from './rows.ts'
import { invalid, type Place, readPlace, readUser, requireText, requireThread } from './run-config.ts'
import { dump, isStock, load } from './serde.ts'
import { createShared, type Shared } from './shared.ts'
import {
  createUpkeep,
  type PruneOptions,
  type Removed,
  type StateThread,
  type Upkeep,
} from './upkeep/service.ts'
import { nextVersion } from './versions.ts'

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

const NEWEST_FORMAT = 4
const PENDING_SENDS_MOVED = 4
const FIRST_PAGE = 10
const MAX_PAGE = 100
const PAGE_BYTES = 8_000_000

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

  /** A text, though LangGraph types a graph's checkpointer as one of numbers: it compares either, and computes with none. */
  override getNextVersion(current: string | number | undefined): number {
    return nextVersion(current) as string | number as number
  }

  /** Undefined when there is none, or the config names no thread. @throws invalid_input, unavailable */
  override async getTuple(config: RunnableConfig): Promise<CheckpointTuple | undefined> {
    const place = this.#place(config)
    const { userId, threadId, ns = '', id } = place
    if (threadId === undefined) return undefined
    const children = this.#rejects
    const query = { userId, threadId, ns, id, limit: 1 }
    const { checkpoints, blobs } = await repo.readCheckpoints(this.#forUser(userId), query, { children })
    const [found] = checkpoints
    if (found === undefined) return undefined
    if (children) this.#shared.children.keep({ userId, threadId, ns, id: found.id }, found.children)
    const tuple = await this.#toTuple(found, {
      blobs,
      config,
      decoder: { ...this.#decoder(userId), memo: this.#memoOf(userId) },
    })
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
    let left = limit ?? Number.POSITIVE_INFINITY
    let page = FIRST_PAGE
    let after: repo.Query['after']
    while (left > 0) {
      const size = Math.min(page, left)
      const read = await repo.readCheckpoints(this.#forUser(userId), { ...query, after, limit: size })
      const reading = { blobs: read.blobs, config, decoder: this.#decoder(userId) }
      for (const found of read.checkpoints) yield await this.#toTuple(found, reading)
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
    requireFormat(checkpoint.v)
    const input = {
      key,
      parentId: place.id,
      checkpoint,
      metadata,
      changed: new Set(Object.keys(newVersions)),
    }
    const known = this.#knownOf(key.userId, key.threadId)
    let outcome = await this.#store(input, known)
    if (outcome === 'missing') {
      // another process removed what this one had stored: everything is sent again
      known.forget()
      outcome = await this.#store(input, NOTHING_KNOWN)
    }
    if (outcome === 'conflict') throw behind(key.threadId, place.id)
    if (outcome === 'replaced') await this.#upkeep.sweep(key.userId, key.threadId)
    else this.#seeOwn(key, place.id)
    return this.#configOf(config, key.threadId, key.ns, id)
  }

  async #store(
    { key, parentId, checkpoint, metadata, changed }: PutInput,
    known: Known,
  ): Promise<repo.PutOutcome> {
    const { userId, threadId, ns, id } = key
    const encoder = this.#encoder(userId, known)
    const values = checkpoint.channel_values ?? {}
    const channels = Object.keys(values).filter(
      (name) => values[name] !== undefined && (parentId !== undefined || changed.has(name)),
    )
    for (const name of channels) requireText(name, 'a name in channel_values', true)
    const [plan, metadataText] = await Promise.all([
      planCheckpoint(encoder, { ...checkpoint, channel_values: values }, channels, changed),
      dumpMetadata(metadata),
    ])
    const row: repo.CheckpointRow = {
      ...key,
      parentId: parentId ?? null,
      v: checkpoint.v,
      channels: plan.channels,
      roots: plan.roots,
      metadata: metadataText,
      record: encoder.codec.encode(Buffer.from(plan.record), true, recordPlace(ns, id)),
      createdAt: toTime(checkpoint.ts),
    }
    const parent = { userId, threadId, ns, id: parentId }
    const children = this.#rejects ? this.#shared.children.find(parent) : null
    const blobs = toBlobRows(plan.blobs, encoder.codec)
    const outcome = await repo.putCheckpoint(this.#forUser(userId), row, blobs, plan.expected, children)
    if (outcome === 'stored' || outcome === 'replaced') this.#knownOf(userId, threadId).add(plan.blobs.keys())
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
    const codec = this.#shared.codecOf(userId)
    const rows = await Promise.all(
      writes.map(async ([channel, value], i): Promise<repo.WriteRow> => {
        const idx = WRITES_IDX_MAP[channel] ?? i
        const { type, data } = await dump(this.serde, value, `writes.${i} (${channel})`)
        const isText = this.#stock && type === 'json'
        return {
          idx,
          channel: requireText(channel, 'channel of a write'),
          type,
          coded: codec.encode(data, isText, writePlace(ns, id, taskId, idx)),
        }
      }),
    )
    // of several errors or interrupts in one call the last counts, as it would in several calls
    const last = new Map(rows.map((row) => [row.idx, row]))
    if (last.size === 0) return
    await repo.putWrites(
      this.#forUser(userId),
      { userId, threadId, ns, id },
      { id: taskId, path: taskPath },
      [...last.values()],
    )
  }

  /** In one statement: the walk is done by the database. */
  override async getDeltaChannelHistory(options: {
    config: RunnableConfig
    channels: string[]
  }): Promise<Record<string, DeltaChannelHistory>> {
    const { userId, threadId, ns = '', id } = this.#place(options.config)
    const channels = [...new Set(options.channels)]
    const histories = new Map(channels.map((name): [string, DeltaChannelHistory] => [name, { writes: [] }]))
    if (threadId === undefined || channels.length === 0) return Object.fromEntries(histories)
    const decoder = this.#decoder(userId)
    const query = { userId, threadId, ns, id, channels }
    const { checkpoints, blobs } = await repo.readPath(this.#forUser(userId), query)
    const open = new Set(channels)
    // the nearest ancestor comes first, the oldest write is wanted first
    for (const found of checkpoints) {
      for (const write of (await this.#readWrites(found.writes, decoder)).reverse()) {
        histories.get(write[1])?.writes.push(write)
      }
      if (found.text === null && found.data === null) continue
      const { channel_values } = await readCheckpoint(decoder, found, blobs, open)
      for (const [name, seed] of Object.entries(channel_values)) {
        const history = histories.get(name)
        if (open.delete(name) && history !== undefined) history.seed = seed
      }
    }
    for (const { writes } of histories.values()) writes.reverse()
    return Object.fromEntries(histories)
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

  #encoder(userId: string, known: Known): Encoder {
    return { ...this.#decoder(userId), memo: this.#memoOf(userId), known }
  }

  #decoder(userId: string): Decoder {
    return { serde: this.serde, stock: this.#stock, codec: this.#shared.codecOf(userId) }
  }

  #memoOf(userId: string): Memo {
    return this.#shared.memoOf(this.#shared.codecOf(userId), this.serde, this.#stock)
  }

  #seeOwn({ userId, threadId, ns, id }: repo.CheckpointKey, parentId: string | undefined): void {
    if (!this.#rejects) return
    const { children } = this.#shared
    const parent = { userId, threadId, ns, id: parentId }
    children.keep(parent, children.find(parent) + 1)
    children.keep({ userId, threadId, ns, id }, 0)
  }

  /** With the user where the config named one, so that the config of an answer can be used as it is. */
  #configOf(config: RunnableConfig, threadId: string, ns: string, id: string): RunnableConfig {
    const userId = this.#options.userId === undefined ? config?.configurable?.user_id : undefined
    const user = userId === undefined ? {} : { user_id: userId }
    return { configurable: { ...user, thread_id: threadId, checkpoint_ns: ns, checkpoint_id: id } }
  }

  async #toTuple(found: repo.Found, { blobs, decoder, config }: Reading): Promise<CheckpointTuple> {
    const { threadId, ns, id, parentId } = found
    requireFormat(found.v)
    const [checkpoint, metadata, pendingWrites, sends] = await Promise.all([
      readCheckpoint(decoder, found, blobs),
      readMetadata(found.metadata),
      this.#readWrites(found.writes, decoder),
      this.#readWrites(found.sends, decoder),
    ])
    if (found.v < PENDING_SENDS_MOVED && parentId !== null) this.#addSends(checkpoint, sends)
    const tuple: CheckpointTuple = {
      config: this.#configOf(config, threadId, ns, id),
      checkpoint,
      metadata,
      pendingWrites,
    }
    if (parentId !== null) tuple.parentConfig = this.#configOf(config, threadId, ns, parentId)
    return tuple
  }

  /** Before format 4 what a step sent was kept with its checkpoint's writes, and is now a channel of the next. */
  #addSends(checkpoint: Checkpoint, sends: CheckpointPendingWrite[]): void {
    const versions = Object.values(checkpoint.channel_versions)
    checkpoint.channel_values[TASKS] = sends.map(([, , value]) => value)
    checkpoint.channel_versions[TASKS] =
      versions.length > 0 ? maxChannelVersion(...versions) : this.getNextVersion(undefined)
  }

  async #readWrites(writes: repo.StoredWrite[], decoder: Decoder): Promise<CheckpointPendingWrite[]> {
    const keyed = writes.map((write) => ({
      write,
      key: writesSortKey(write.taskPath, write.taskId, write.idx),
    }))
    keyed.sort((a, b) => compareWritesSortKeys(a.key, b.key))
    return Promise.all(
      keyed.map(async ({ write }): Promise<CheckpointPendingWrite> => {
        const { ns, id, taskId, idx, channel, type } = write
        const body = decoder.codec.decode(write, writePlace(ns, id, taskId, idx))
        return [taskId, channel, await load(decoder.serde, decoder.stock, type, body)]
      }),
    )
  }
}

type UserOption = {
  /** Where the checkpointer is nobody's. */
  userId?: string
}
type Reading = { blobs: repo.Read['blobs']; decoder: Decoder; config: RunnableConfig }
type PutInput = {
  key: repo.CheckpointKey
  parentId: string | undefined
  checkpoint: Checkpoint
  metadata: CheckpointMetadata
  changed: ReadonlySet<string>
}

function requireFormat(v: number): void {
  if (Number.isInteger(v) && v <= NEWEST_FORMAT) return
  throw invalid(`checkpoint.v is ${v}; this version knows formats up to ${NEWEST_FORMAT}`, 'checkpoint.v')
}

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
