import {
  isDeltaSnapshot,
  type ReadonlyCheckpoint,
  type SerializerProtocol,
} from '@langchain/langgraph-checkpoint'
import type { Address } from './address.ts'
import type { Codec } from './codec.ts'
import type { Known } from './known.ts'
import type { Look, Memo, Stored } from './memo.ts'
import { dump } from './serde.ts'
import { buildTree, cut, type Nodes } from './tree.ts'

/** What turns values into what is stored, for one thread of a user. */
export type Encoder = { serde: SerializerProtocol; stock: boolean; codec: Codec; memo: Memo; known: Known }

export type NewBlob = { type: string; data: Uint8Array; isText: boolean } | { parts: Address[] }

/** A checkpoint ready to be stored. */
export type Plan = {
  /** JSON: `c` the checkpoint without values, `k` a channel each: its name, its kind, and the value when it is inline. */
  record: string
  channels: string[]
  /** Where the value of each channel is; null when it is inline. */
  roots: (Address | null)[]
  /** What the thread is not known to have. */
  blobs: Map<Address, NewBlob>
  /** What the above refers to and is believed to be stored. */
  expected: Address[]
}

/** `i`: inline, `v`: a value, `l`: a list as a tree, `d`: a DeltaSnapshot of such a list. */
export type Kind = 'i' | 'v' | 'l' | 'd'

/** The type of a value that is several small elements of a list, as JSON. */
export const PACK = '*pack'

// A row of its own costs about 200 bytes, half of them in the index; less than that is cheaper inside of another.
const INLINE_CHARS = 128
const PACKED_CHARS = 64
// A change deep inside an element is looked for where it happens: near the end of the list.
const DEEP_LOOK = 64

/** A value that is read: with its text when small, its bytes when they are not known to be stored. */
type Element = { text?: string; stored?: Stored; fresh?: { type: string; data: Uint8Array } }
type Reading = Element | Promise<Element>

/** @param changed the channels whose value is new: it is written again, whatever is remembered of its object */
export async function planCheckpoint(
  encoder: Encoder,
  checkpoint: ReadonlyCheckpoint,
  channels: readonly string[],
  changed: ReadonlySet<string>,
): Promise<Plan> {
  // everything is read before the first wait: a graph goes on, and changes its state, while it is stored
  const skeleton = writeSkeleton(checkpoint)
  const readings = channels.map((name) =>
    readChannel(encoder, name, checkpoint.channel_values[name], changed.has(name)),
  )
  const plan: Plan = { record: '', channels: [...channels], roots: [], blobs: new Map(), expected: [] }
  const expected = new Set<Address>()
  const kinds: string[] = []
  const settled = await Promise.all(readings.map(settle))
  for (const [i, { kind }] of readings.entries()) {
    const read = settled[i] as Element[]
    const { root, inline, tag } =
      kind === 'v'
        ? placeValue(encoder, read[0] as Element, plan, expected)
        : placeList(encoder, kind, read, plan, expected)
    plan.roots.push(root)
    kinds.push(`[${JSON.stringify(channels[i])},"${tag}"${inline === undefined ? '' : `,${inline}`}]`)
  }
  plan.record = `{"c":${skeleton},"k":[${kinds.join()}]}`
  plan.expected = [...expected].filter((address) => !plan.blobs.has(address))
  return plan
}

/** Without a promise for each of thousands of elements that need none. */
function settle({ elements, pending }: ChannelReading): Element[] | Promise<Element[]> {
  return pending ? Promise.all(elements) : (elements as Element[])
}

function writeSkeleton({ v, id, ts, channel_versions, versions_seen }: ReadonlyCheckpoint): string {
  return JSON.stringify({
    v,
    id,
    ts,
    channel_versions: channel_versions ?? {},
    versions_seen: versions_seen ?? {},
  })
}

type ChannelReading = { kind: 'v' | 'l' | 'd'; elements: Reading[]; pending: boolean }

function readChannel(encoder: Encoder, name: string, value: unknown, changed: boolean): ChannelReading {
  const field = `channel_values.${name}`
  const snapshot = encoder.stock && isDeltaSnapshot(value) && Array.isArray(value.value)
  const list = snapshot ? (value.value as unknown[]) : value
  if (!Array.isArray(list)) {
    const element = readValue(encoder, value, field, changed ? undefined : 'deep')
    return { kind: 'v', elements: [element], pending: element instanceof Promise }
  }
  const elements: Reading[] = []
  let pending = false
  for (let i = 0; i < list.length; i++) {
    const element = readValue(encoder, list[i], field, i >= list.length - DEEP_LOOK ? 'deep' : 'own')
    pending ||= element instanceof Promise
    elements.push(element)
  }
  return { kind: snapshot ? 'd' : 'l', elements, pending }
}

/** @param look how to tell whether a remembered object is unchanged; undefined: it is written in any case */
function readValue(encoder: Encoder, value: unknown, field: string, look: Look | undefined): Reading {
  const { stock, codec, memo, known } = encoder
  if (typeof value !== 'object' || value === null) {
    return stock && isJsonScalar(value) ? readScalar(encoder, value) : writeValue(encoder, value, field)
  }
  const remembered = look === undefined ? undefined : memo.find(value, look)
  if (remembered !== undefined && known.has(remembered.stored.address)) return remembered
  const picture = memo.picture(value)
  const writing = writeValue(encoder, value, field)
  return writing.then((element) => {
    const { fresh, text } = element
    if (fresh === undefined || (text !== undefined && text.length <= PACKED_CHARS)) return element
    element.stored ??= { address: codec.ofValue(fresh.type, fresh.data), size: fresh.data.length }
    if (picture !== undefined) memo.keep(value, picture, { stored: element.stored })
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

type Place = { root: Address | null; tag: Kind; inline?: string }

function placeValue(encoder: Encoder, element: Element, plan: Plan, expected: Set<Address>): Place {
  if (element.text !== undefined) return { root: null, tag: 'i', inline: element.text }
  return { root: addElement(encoder, element, plan, expected), tag: 'v' }
}

function placeList(
  encoder: Encoder,
  kind: 'l' | 'd',
  elements: Element[],
  plan: Plan,
  expected: Set<Address>,
): Place {
  const inline = writeSmallList(encoder, elements)
  if (inline !== undefined) {
    return {
      root: null,
      tag: 'i',
      inline: kind === 'l' ? inline : `{"lc":2,"type":"delta_snapshot","value":${inline}}`,
    }
  }
  const packed = encoder.stock ? packSmall(elements) : elements
  const fresh = new Map<Address, Element>()
  const values = packed.map((element) => {
    const address = addressOf(encoder, element)
    if (element.fresh !== undefined) fresh.set(address, element)
    return address
  })
  const { root, nodes } = buildTree(values, encoder.codec)
  addNode(encoder, root, nodes, fresh, plan, expected)
  return { root, tag: kind }
}

function writeSmallList({ stock }: Encoder, elements: Element[]): string | undefined {
  if (!stock || elements.length > INLINE_CHARS / 2) return undefined
  const texts: string[] = []
  let length = 1
  for (const { text } of elements) {
    length += 1 + (text?.length ?? INLINE_CHARS)
    if (text === undefined || length > INLINE_CHARS) return undefined
    texts.push(text)
  }
  return `[${texts.join()}]`
}

/** Neighbours that are small become one value, cut as lists are cut. */
function packSmall(elements: Element[]): Element[] {
  const packed: Element[] = []
  let run: string[] = []
  const endRun = () => {
    for (const texts of cut(run, checksum)) {
      packed.push({ fresh: { type: PACK, data: Buffer.from(`[${texts.join()}]`) } })
    }
    run = []
  }
  for (const element of elements) {
    if (element.text !== undefined && element.text.length <= PACKED_CHARS) run.push(element.text)
    else {
      if (run.length > 0) endRun()
      packed.push(element)
    }
  }
  endRun()
  return packed
}

/** FNV-1a: it only decides where packs end. */
function checksum(text: string): number {
  let sum = 0x811c9dc5
  for (let i = 0; i < text.length; i++) sum = Math.imul(sum ^ text.charCodeAt(i), 0x01000193)
  return sum >>> 11
}

function addressOf({ codec }: Encoder, element: Element): Address {
  if (element.stored !== undefined) return element.stored.address
  const { type, data } = element.fresh as { type: string; data: Uint8Array }
  element.stored = { address: codec.ofValue(type, data), size: data.length }
  return element.stored.address
}

function addElement(encoder: Encoder, element: Element, plan: Plan, expected: Set<Address>): Address {
  const address = addressOf(encoder, element)
  // one that was known a moment ago comes without its bytes: the database has the last word
  if (element.fresh === undefined || encoder.known.has(address)) expected.add(address)
  else plan.blobs.set(address, { ...element.fresh, isText: encoder.stock && element.fresh.type !== 'bytes' })
  return address
}

/** A node that is stored has all its parts stored: only what is new is looked into. */
function addNode(
  encoder: Encoder,
  address: Address,
  nodes: Nodes,
  fresh: ReadonlyMap<Address, Element>,
  plan: Plan,
  expected: Set<Address>,
): void {
  if (encoder.known.has(address)) {
    expected.add(address)
    return
  }
  const parts = nodes.get(address) as Address[]
  plan.blobs.set(address, { parts })
  for (const part of parts) {
    const element = fresh.get(part)
    if (element !== undefined) addElement(encoder, element, plan, expected)
    else if (nodes.has(part)) addNode(encoder, part, nodes, fresh, plan, expected)
    else expected.add(part)
  }
}
