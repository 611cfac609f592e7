import {
  type Checkpoint,
  type CheckpointMetadata,
  DeltaSnapshot,
  JsonPlusSerializer,
  type SerializerProtocol,
} from '@langchain/langgraph-checkpoint'
import { decodeJsonb } from '../core/json.ts'
import type { Address } from './address.ts'
import type { Codec, StoredCoded } from './codec.ts'
import type { Kind } from './encode.ts'
import { PACK } from './list.ts'
import type { Memo, Stored } from './memo.ts'
import { load, loadJson, parseText, revive, SLOW, toText } from './serde.ts'
import { listValues } from './tree.ts'

export type StoredBlob = StoredCoded & { type: string | null; parts: Address[] | undefined }

/** What turns rows into values. With a memo, objects that were read need not be written to be stored again. */
export type Decoder = { serde: SerializerProtocol; stock: boolean; codec: Codec; memo?: Memo }

export type StoredCheckpoint = StoredCoded & {
  threadId: string
  ns: string
  id: string
  parentId: string | null
  /** As jsonb's text. */
  metadata: string
  roots: (Address | null)[]
}

type RecordJson = { c: Omit<Checkpoint, 'channel_values'>; k: [name: string, kind: Kind, inline?: unknown][] }

export const blobPlace = (address: Address) => `blob ${address}`
export const recordPlace = (ns: string, id: string) => `record ${JSON.stringify([ns, id])}`
export const writePlace = (ns: string, id: string, taskId: string, idx: number) =>
  `write ${JSON.stringify([ns, id, taskId, idx])}`

/** The checkpoint with its values, or with those of some channels only. Every call makes new objects. */
export async function readCheckpoint(
  decoder: Decoder,
  stored: StoredCheckpoint,
  blobs: ReadonlyMap<Address, StoredBlob>,
  only?: ReadonlySet<string>,
): Promise<Checkpoint> {
  const text = decoder.codec.decode(stored, recordPlace(stored.ns, stored.id)).toString()
  const { c, k } = parseText(text) as RecordJson
  const read = async ([name, kind, inline]: RecordJson['k'][number], i: number) => {
    const root = stored.roots[i] ?? null
    if (kind === 'i') return [name, await readInline(inline)] as const
    if (root === null) return undefined
    return [name, await readRoot(decoder, kind, root, blobs, name)] as const
  }
  const wanted = k.map((entry, i) => (only === undefined || only.has(entry[0]) ? read(entry, i) : undefined))
  const values = (await Promise.all(wanted)).filter((entry) => entry !== undefined)
  return { ...c, channel_values: Object.fromEntries(values) }
}

async function readInline(inline: unknown): Promise<unknown> {
  // what is inline was written by LangGraph's serializer
  const text = JSON.stringify(inline)
  const value = revive(inline)
  return value === SLOW ? new JsonPlusSerializer().loadsTyped('json', text) : value
}

async function readRoot(
  decoder: Decoder,
  kind: Kind,
  root: Address,
  blobs: ReadonlyMap<Address, StoredBlob>,
  channel: string,
): Promise<unknown> {
  const blobOf = (address: Address): StoredBlob => {
    const blob = blobs.get(address)
    if (blob === undefined)
      throw new Error(`a value of channel ${channel} is missing from the database: ${address}`)
    return blob
  }
  if (kind === 'v') return readValue(decoder, root, blobOf(root))
  const addresses = listValues(root, (address) => blobOf(address).parts)
  const list = await readElements(
    decoder,
    addresses.map((address) => [address, blobOf(address)]),
  )
  return kind === 'd' ? new DeltaSnapshot(list) : list
}

/** Without a promise for each of thousands of elements that need none. */
async function readElements(decoder: Decoder, stored: [Address, StoredBlob][]): Promise<unknown[]> {
  const list: unknown[] = []
  for (const [address, blob] of stored) {
    if (blob.type === PACK) list.push(...(await readPack(decoder, address, blob)))
    else {
      const value = readAtOnce(decoder, address, blob)
      list.push(value === SLOW ? await readValue(decoder, address, blob) : value)
    }
  }
  return list
}

async function readPack(decoder: Decoder, address: Address, blob: StoredBlob): Promise<unknown[]> {
  const text = decoder.codec.decode(blob, blobPlace(address)).toString()
  const value = loadJson(text)
  return (value === SLOW ? await new JsonPlusSerializer().loadsTyped('json', text) : value) as unknown[]
}

/** SLOW for what only the serializer itself can read. */
function readAtOnce(decoder: Decoder, address: Address, blob: StoredBlob): unknown {
  if (!decoder.stock || blob.type !== 'json') return SLOW
  const body = decoder.codec.decode(blob, blobPlace(address))
  const value = loadJson(toText(body))
  if (value !== SLOW) remember(decoder, value, { address, size: body.length }, blob)
  return value
}

async function readValue(decoder: Decoder, address: Address, blob: StoredBlob): Promise<unknown> {
  const body = decoder.codec.decode(blob, blobPlace(address))
  const value = await load(decoder.serde, decoder.stock, blob.type as string, body)
  remember(decoder, value, { address, size: body.length }, blob)
  return value
}

/** What is under an old key is not: it is written again when its thread goes on, so that the key can go. */
function remember({ memo, codec }: Decoder, value: unknown, stored: Stored, blob: StoredBlob): void {
  if (memo === undefined || !codec.isCurrent(blob)) return
  if (typeof value === 'string') memo.keepText(value, stored)
  if (typeof value !== 'object' || value === null) return
  const picture = memo.picture(value)
  if (picture !== undefined) memo.keep(value, picture, stored)
}

export async function readMetadata(text: string): Promise<CheckpointMetadata> {
  const json = decodeJsonb(text)
  const copy = JSON.stringify(json)
  const value = revive(json)
  return (
    value === SLOW ? await new JsonPlusSerializer().loadsTyped('json', copy) : value
  ) as CheckpointMetadata
}
