import type { SerializerProtocol } from '@langchain/langgraph-checkpoint'
import type { Address } from './address.ts'
import type { Codec } from './codec.ts'
import type { KnownLists } from './known.ts'
import type { Look, Memo, Stored } from './memo.ts'
import { dump } from './serde.ts'

/** What turns values into what is stored, for one namespace of a thread of a user. */
export type Encoder = {
  serde: SerializerProtocol
  stock: boolean
  codec: Codec
  memo: Memo
  known: KnownLists
}

/** A value that is read: with its text when small, its bytes when they are not known to be stored. */
export type Element = { text?: string; stored?: Stored; fresh?: { type: string; data: Uint8Array } }
export type Reading = Element | Promise<Element>

// A row of its own costs about 200 bytes, half of them in the index; less than that is cheaper inside of another.
export const INLINE_CHARS = 128
export const PACKED_CHARS = 64

/** @param look how to tell whether a remembered object is unchanged; undefined: it is written in any case */
export function readValue(encoder: Encoder, value: unknown, field: string, look: Look | undefined): Reading {
  const { stock, codec, memo, known } = encoder
  if (typeof value !== 'object' || value === null) {
    return stock && isJsonScalar(value) ? readScalar(encoder, value) : writeValue(encoder, value, field)
  }
  const stored = look === undefined ? undefined : memo.find(value, look)
  if (stored !== undefined && known.has(stored.address)) return { stored }
  const picture = memo.picture(value)
  const writing = writeValue(encoder, value, field)
  return writing.then((element) => {
    const { fresh, text } = element
    if (fresh === undefined || (text !== undefined && text.length <= PACKED_CHARS)) return element
    element.stored ??= { address: codec.ofValue(fresh.type, fresh.data), size: fresh.data.length }
    if (picture !== undefined) memo.keep(value, picture, element.stored)
    return element
  })
}

type JsonScalar = string | number | boolean | null
const isJsonScalar = (value: unknown): value is JsonScalar =>
  value === null || typeof value === 'string' || typeof value === 'number' || typeof value === 'boolean'

function readScalar({ codec, memo, known }: Encoder, value: JsonScalar): Element {
  if (typeof value !== 'string' || value.length <= INLINE_CHARS) {
    const text = JSON.stringify(value)
    if (text.length <= INLINE_CHARS) return { text, fresh: { type: 'json', data: Buffer.from(text) } }
  }
  const stored = typeof value === 'string' ? memo.findText(value) : undefined
  if (stored !== undefined && known.has(stored.address)) return { stored }
  const data = Buffer.from(JSON.stringify(value))
  const found = stored ?? { address: codec.ofValue('json', data), size: data.length }
  if (typeof value === 'string') memo.keepText(value, found)
  return { stored: found, fresh: { type: 'json', data } }
}

async function writeValue({ serde, stock }: Encoder, value: unknown, field: string): Promise<Element> {
  const fresh = await dump(serde, value, field)
  const small = stock && fresh.type === 'json' && fresh.data.length <= INLINE_CHARS
  return small ? { text: Buffer.from(fresh.data).toString(), fresh } : { fresh }
}

export function addressOf({ codec }: Encoder, element: Element): Address {
  if (element.stored !== undefined) return element.stored.address
  const { type, data } = element.fresh as { type: string; data: Uint8Array }
  element.stored = { address: codec.ofValue(type, data), size: data.length }
  return element.stored.address
}
