import type { RunnableConfig } from '@langchain/core/runnables'
import {
  type ChannelVersions,
  type Checkpoint,
  type CheckpointPendingWrite,
  type CheckpointTuple,
  compareWritesSortKeys,
  type DeltaChannelHistory,
  maxChannelVersion,
  TASKS,
  writesSortKey,
} from '@langchain/langgraph-checkpoint'
import { type Decoder, readCheckpoint, readMetadata, writePlace } from './decode.ts'
import type { Found, Read, StoredWrite } from './repo.ts'
import { invalid } from './run-config.ts'
import { load } from './serde.ts'
import { nextVersion } from './versions.ts'

const NEWEST_FORMAT = 4
const PENDING_SENDS_MOVED = 4

/** The config of a checkpoint of a thread, as the caller can use it again. */
export type ConfigOf = (threadId: string, ns: string, id: string) => RunnableConfig

/** @throws invalid_input */
export function requireFormat(v: number): void {
  if (Number.isInteger(v) && v <= NEWEST_FORMAT) return
  throw invalid(`checkpoint.v is ${v}; this version knows formats up to ${NEWEST_FORMAT}`, 'checkpoint.v')
}

/** @throws invalid_input for a format that is newer than this code */
export async function toTuple(
  found: Found,
  { blobs, decoder, configOf }: { blobs: Read['blobs']; decoder: Decoder; configOf: ConfigOf },
): Promise<CheckpointTuple> {
  const { threadId, ns, id, parentId } = found
  requireFormat(found.v)
  const [checkpoint, metadata, pendingWrites, sends] = await Promise.all([
    readCheckpoint(decoder, found, blobs),
    readMetadata(found.metadata),
    readWrites(decoder, found.writes),
    readWrites(decoder, found.sends),
  ])
  if (found.v < PENDING_SENDS_MOVED && parentId !== null) addSends(checkpoint, sends)
  const tuple: CheckpointTuple = { config: configOf(threadId, ns, id), checkpoint, metadata, pendingWrites }
  if (parentId !== null) tuple.parentConfig = configOf(threadId, ns, parentId)
  return tuple
}

/** Before format 4 what a step sent was kept with its checkpoint's writes, and is now a channel of the next. */
function addSends(checkpoint: Checkpoint, sends: CheckpointPendingWrite[]): void {
  const versions: ChannelVersions[string][] = Object.values(checkpoint.channel_versions)
  checkpoint.channel_values[TASKS] = sends.map(([, , value]) => value)
  checkpoint.channel_versions[TASKS] =
    versions.length > 0 ? maxChannelVersion(...versions) : nextVersion(undefined)
}

/** In the order in which the tasks of a step come. */
async function readWrites(decoder: Decoder, writes: StoredWrite[]): Promise<CheckpointPendingWrite[]> {
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

/**
 * What channels are made of: the nearest value that was stored of each, and the writes since, oldest first.
 * @param path the ancestors, nearest first
 */
export async function toHistories(
  { checkpoints, blobs }: Pick<Read, 'checkpoints' | 'blobs'>,
  channels: string[],
  decoder: Decoder,
): Promise<Record<string, DeltaChannelHistory>> {
  const histories = new Map(channels.map((name): [string, DeltaChannelHistory] => [name, { writes: [] }]))
  const open = new Set(channels)
  for (const found of checkpoints) {
    for (const write of (await readWrites(decoder, found.writes)).reverse()) {
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
