import { type CheckpointMetadata, JsonPlusSerializer } from '@langchain/langgraph-checkpoint'
import { encodeJsonb } from '../core/json.ts'
import type { Address } from './address.ts'
import type { Codec } from './codec.ts'
import { blobPlace } from './decode.ts'
import type { NewBlob } from './encode.ts'
import type { BlobRow, Query } from './repo.ts'
import { dump, parseText } from './serde.ts'

// metadata is searched in the database: it is JSON, whatever serializer values have
const json = new JsonPlusSerializer()

/** For a `jsonb` column: as LangGraph's serializer writes it, with what jsonb cannot hold in a form that it can. */
export async function dumpMetadata(metadata: CheckpointMetadata | undefined): Promise<string> {
  const { data } = await dump(json, metadata ?? {}, 'metadata')
  return encodeJsonb(parseText(Buffer.from(data).toString()))
}

/** Fields that must equal; those that are undefined must not be there. */
export async function dumpFilter(
  filter: Record<string, unknown> | undefined,
): Promise<Pick<Query, 'filter' | 'absent'>> {
  const entries = Object.entries(filter ?? {})
  const wanted = Object.fromEntries(entries.filter(([, value]) => value !== undefined))
  const absent = entries
    .filter(([, value]) => value === undefined)
    .map(([key]) => JSON.parse(encodeJsonb(key)) as string)
  const { data } = await dump(json, wanted, 'filter')
  return {
    filter:
      Object.keys(wanted).length === 0 ? undefined : encodeJsonb(parseText(Buffer.from(data).toString())),
    absent: absent.length === 0 ? undefined : absent,
  }
}

/** In order of address, so that two puts of one thread cannot wait for each other. */
export function toBlobRows(blobs: ReadonlyMap<Address, NewBlob>, codec: Codec): BlobRow[] {
  return [...blobs]
    .map(([hash, blob]): BlobRow => {
      if ('parts' in blob) return { hash, type: null, coded: null, ...blob }
      const coded = codec.encode(blob.data, blob.isText, blobPlace(hash))
      return { hash, type: blob.type, coded, parts: [], height: 0 }
    })
    .sort((a, b) => (a.hash < b.hash ? -1 : 1))
}

const TIME = /^\d{4}-\d\d-\d\dT/

/** What a checkpoint says of its time, in a form that the database knows; null when it says none. */
export function toTime(ts: unknown): string | null {
  if (typeof ts !== 'string' || !TIME.test(ts) || ts.startsWith('0000')) return null
  const time = new Date(ts)
  return Number.isNaN(time.getTime()) ? null : time.toISOString()
}
