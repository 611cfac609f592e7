import { isDeltaSnapshot, type ReadonlyCheckpoint } from '@langchain/langgraph-checkpoint'
import type { Address } from './address.ts'
import { addressOf, type Element, type Encoder, type Reading, readValue } from './element.ts'
import type { StoredList } from './known.ts'
import { type ListReading, placeList, readList, type SettledList, type Sink, writeSmallList } from './list.ts'
import type { TreeNode } from './tree.ts'

export type NewBlob = { type: string; data: Uint8Array; isText: boolean } | TreeNode

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
  /** The lists by channel, to be remembered when all is stored. */
  lists: Map<string, StoredList>
}

/** `i`: inline, `v`: a value, `l`: a list as a tree, `d`: a DeltaSnapshot of such a list. */
export type Kind = 'i' | 'v' | 'l' | 'd'

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
  const expected = new Set<Address>()
  const plan: Plan = {
    record: '',
    channels: [...channels],
    roots: [],
    blobs: new Map(),
    expected: [],
    lists: new Map(),
  }
  const sink = createSink(encoder, plan, expected)
  const kinds: string[] = []
  const settled = await Promise.all(readings.map(({ elements }) => settle(elements)))
  for (const [i, reading] of readings.entries()) {
    const { kind } = reading
    const name = channels[i] as string
    const list = { ...reading, elements: settled[i] as Element[] }
    const placed =
      kind === 'v'
        ? placeValue(encoder, list.elements[0] as Element, sink)
        : placeChannelList(encoder, kind, list, sink)
    plan.roots.push(placed.root)
    if (placed.list !== undefined) plan.lists.set(name, placed.list)
    const inline = placed.inline === undefined ? '' : `,${placed.inline}`
    kinds.push(`[${JSON.stringify(name)},"${placed.tag}"${inline}]`)
  }
  plan.record = `{"c":${skeleton},"k":[${kinds.join()}]}`
  plan.expected = [...expected].filter((address) => !plan.blobs.has(address))
  return plan
}

/** Without a promise for each of thousands of elements that need none. */
async function settle(elements: Reading[]): Promise<Element[]> {
  // all of them first: no failure may go unseen
  await Promise.all(elements.filter((element) => element instanceof Promise))
  for (const [i, element] of elements.entries()) if (element instanceof Promise) elements[i] = await element
  return elements as Element[]
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

type ChannelReading = ListReading & { kind: 'v' | 'l' | 'd' }

function readChannel(encoder: Encoder, name: string, value: unknown, changed: boolean): ChannelReading {
  const field = `channel_values.${name}`
  const snapshot = encoder.stock && isDeltaSnapshot(value) && Array.isArray(value.value)
  const list = snapshot ? (value.value as unknown[]) : value
  if (!Array.isArray(list)) {
    const element = readValue(encoder, value, field, changed ? undefined : 'deep')
    return { kind: 'v', beginning: undefined, elements: [element], objects: [] }
  }
  return { kind: snapshot ? 'd' : 'l', ...readList(encoder, list, field, encoder.known.find(name)) }
}

type Placed = { root: Address | null; tag: Kind; inline?: string; list?: StoredList }

function placeValue(encoder: Encoder, element: Element, sink: Sink): Placed {
  if (element.text !== undefined) return { root: null, tag: 'i', inline: element.text }
  sink.addValue(element)
  return { root: addressOf(encoder, element), tag: 'v' }
}

function placeChannelList(encoder: Encoder, kind: 'l' | 'd', read: SettledList, sink: Sink): Placed {
  const inline = writeSmallList(encoder, read)
  if (inline !== undefined) {
    const value = kind === 'l' ? inline : `{"lc":2,"type":"delta_snapshot","value":${inline}}`
    return { root: null, tag: 'i', inline: value }
  }
  const list = placeList(encoder, read, sink)
  return { root: list.tree.root, tag: kind, list }
}

function createSink(encoder: Encoder, { blobs }: Plan, expected: Set<Address>): Sink {
  const { stock, known } = encoder
  return {
    addValue: (element) => {
      const address = addressOf(encoder, element)
      // one that was known a moment ago comes without its bytes: the database has the last word
      if (element.fresh === undefined || known.has(address)) expected.add(address)
      else blobs.set(address, { ...element.fresh, isText: stock && element.fresh.type !== 'bytes' })
    },
    addNode: (address, node) => void blobs.set(address, node),
    expect: (address) => void expected.add(address),
  }
}
