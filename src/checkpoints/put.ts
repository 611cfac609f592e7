import {
  type Checkpoint,
  type CheckpointMetadata,
  type PendingWrite,
  WRITES_IDX_MAP,
} from '@langchain/langgraph-checkpoint'
import { type Decoder, recordPlace, writePlace } from './decode.ts'
import type { Encoder } from './element.ts'
import { planCheckpoint } from './encode.ts'
import type { StoredList } from './known.ts'
import type { BlobRow, CheckpointKey, CheckpointRow, WriteRow } from './repo.ts'
import { dumpMetadata, toBlobRows, toTime } from './rows.ts'
import { requireText } from './run-config.ts'
import { dump } from './serde.ts'

/** What a put was asked to store. */
export type PutInput = {
  key: CheckpointKey
  parentId: string | undefined
  checkpoint: Checkpoint
  metadata: CheckpointMetadata
  /** The channels whose value is new. Without a parent there are no others to store. */
  changed: ReadonlySet<string>
}

export type PutRows = {
  row: CheckpointRow
  /** What the thread is not known to have. */
  blobs: BlobRow[]
  /** What the rows refer to and is believed to be stored. */
  expected: string[]
  /** To be remembered when all is stored. */
  lists: ReadonlyMap<string, StoredList>
}

/** @throws invalid_input that names the field */
export async function encodeCheckpoint(encoder: Encoder, input: PutInput): Promise<PutRows> {
  const { key, parentId, checkpoint, metadata, changed } = input
  const values = checkpoint.channel_values ?? {}
  const channels = Object.keys(values).filter(
    (name) => values[name] !== undefined && (parentId !== undefined || changed.has(name)),
  )
  for (const name of channels) requireText(name, 'a name in channel_values', true)
  const [plan, metadataText] = await Promise.all([
    planCheckpoint(encoder, { ...checkpoint, channel_values: values }, channels, changed),
    dumpMetadata(metadata),
  ])
  const row: CheckpointRow = {
    ...key,
    parentId: parentId ?? null,
    v: checkpoint.v,
    channels: plan.channels,
    roots: plan.roots,
    metadata: metadataText,
    record: encoder.codec.encode(Buffer.from(plan.record), true, recordPlace(key.ns, key.id)),
    createdAt: toTime(checkpoint.ts),
  }
  const { expected, lists } = plan
  return { row, blobs: toBlobRows(plan.blobs, encoder.codec), expected, lists }
}

/** Of several errors or interrupts in one call the last counts, as it would in several calls. @throws invalid_input */
export async function encodeWrites(
  { serde, stock, codec }: Decoder,
  { ns, id, taskId }: { ns: string; id: string; taskId: string },
  writes: PendingWrite[],
): Promise<WriteRow[]> {
  const rows = await Promise.all(
    writes.map(async ([channel, value], i): Promise<WriteRow> => {
      const idx = Object.hasOwn(WRITES_IDX_MAP, channel) ? (WRITES_IDX_MAP[channel] as number) : i
      const { type, data } = await dump(serde, value, `writes.${i} (${channel})`)
      const isText = stock && type === 'json'
      return {
        idx,
        channel: requireText(channel, 'channel of a write'),
        type,
        coded: codec.encode(data, isText, writePlace(ns, id, taskId, idx)),
      }
    }),
  )
  return [...new Map(rows.map((row) => [row.idx, row])).values()]
}
