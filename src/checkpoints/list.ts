import type { Address } from './address.ts'
import {
  addressOf,
  type Element,
  type Encoder,
  INLINE_CHARS,
  PACKED_CHARS,
  type Reading,
  readValue,
} from './element.ts'
import type { StoredList } from './known.ts'
import type { Look, Memo } from './memo.ts'
import { countUnchanged, type Snapshots, takeSnapshots } from './snapshot.ts'
import { buildTree, cut, type TreeNode } from './tree.ts'

/** The type of a value that is several small elements of a list, as JSON. */
export const PACK = '*pack'

// A change deep inside an element is looked for where it happens: near the end of the list.
const DEEP_LOOK = 64

/** The first `same` elements are those of a list that is stored. */
export type Beginning = { list: StoredList; same: number }

/** What is read of a list: how it begins, the elements behind that, and all objects, which the graph may soon replace. */
export type ListReading<T = Reading> = {
  beginning: Beginning | undefined
  elements: T[]
  objects: readonly unknown[]
}
export type SettledList = ListReading<Element>

/** @param before what the channel held last */
export function readList(
  encoder: Encoder,
  list: readonly unknown[],
  field: string,
  before: StoredList | undefined,
): ListReading {
  const lookAt = (i: number): Look => (i >= list.length - DEEP_LOOK ? 'deep' : 'own')
  const same = before === undefined ? 0 : countSame(encoder, list, before, lookAt)
  const elements: Reading[] = []
  for (let i = same; i < list.length; i++) elements.push(readValue(encoder, list[i], field, lookAt(i)))
  const beginning = before === undefined || same === 0 ? undefined : { list: before, same }
  return { beginning, elements, objects: list.slice() }
}

/** How many elements at the beginning are still those of the list before. */
function countSame(
  { memo, known }: Encoder,
  list: readonly unknown[],
  { tree, plain }: StoredList,
  lookAt: (i: number) => Look,
): number {
  // what is below a root that is stored is stored
  if (!known.has(tree.root)) return 0
  const values = tree.levels[0]?.items ?? []
  const end = Math.min(list.length, plain)
  const snapshots = snapshotsOf(memo, list)
  let same =
    snapshots?.tree === tree ? countUnchanged(snapshots, list, Math.min(end, list.length - DEEP_LOOK)) : 0
  while (same < end) {
    const element = list[same]
    if (typeof element !== 'object' || element === null) break
    if (memo.find(element, lookAt(same))?.address !== values[same]) break
    same++
  }
  return same
}

function snapshotsOf(memo: Memo, [first]: readonly unknown[]): Snapshots | undefined {
  return typeof first === 'object' && first !== null ? memo.snapshots.get(first) : undefined
}

/** Where the values and nodes of a list go that are not known to be stored. */
export type Sink = {
  /** A value that is new, or known and then expected to be there. */
  addValue(element: Element): void
  addNode(address: Address, node: TreeNode): void
  expect(address: Address): void
}

/** A list as JSON when it is so small that it stands in the record. */
export function writeSmallList({ stock }: Encoder, { beginning, elements }: SettledList): string | undefined {
  if (!stock || beginning !== undefined || elements.length > INLINE_CHARS / 2) return undefined
  const texts: string[] = []
  let length = 1
  for (const { text } of elements) {
    length += 1 + (text?.length ?? INLINE_CHARS)
    if (text === undefined || length > INLINE_CHARS) return undefined
    texts.push(text)
  }
  return `[${texts.join()}]`
}

/** The list as it will be stored, with what is new of it added to the sink. */
export function placeList(encoder: Encoder, read: SettledList, sink: Sink): StoredList {
  const { beginning, elements } = read
  const fresh = new Map<Address, Element>()
  const stored = new Set<Address>()
  const values = (encoder.stock ? packSmall(elements) : elements).map((element) => {
    const address = addressOf(encoder, element)
    if (element.fresh === undefined) stored.add(address)
    else fresh.set(address, element)
    return address
  })
  const same = beginning?.same ?? 0
  const before = beginning && { tree: beginning.list.tree, same }
  const all = before === undefined ? values : [...firstOf(before.tree.levels[0]?.items, same), ...values]
  const { tree, nodes } = buildTree(all, encoder.codec, before)
  addNode(tree.root)
  const list = { tree, plain: same + countPlain(encoder, elements) }
  keepSnapshots(encoder, list, read)
  return list

  /** A node that is stored has all its parts stored: only what is new is looked into. */
  function addNode(address: Address): void {
    const node = nodes.get(address)
    if (encoder.known.has(address)) sink.expect(address)
    else if (node === undefined) addStored(address)
    else {
      sink.addNode(address, node)
      for (const part of node.parts) addPart(part)
    }
  }

  function addPart(part: Address): void {
    const element = fresh.get(part)
    if (element !== undefined) sink.addValue(element)
    else if (nodes.has(part)) addNode(part)
    else addStored(part)
  }

  /** What is of the list before needs no look of its own: that list is all there, or it is not. */
  function addStored(address: Address): void {
    sink.expect(before === undefined || stored.has(address) ? address : before.tree.root)
  }
}

function keepSnapshots({ memo }: Encoder, { tree, plain }: StoredList, read: SettledList): void {
  const { beginning, objects } = read
  const [first] = objects
  if (plain < DEEP_LOOK || typeof first !== 'object' || first === null) return
  const before = memo.snapshots.get(first)
  const known = before?.tree === beginning?.list.tree ? before : undefined
  const same = beginning?.same ?? 0
  memo.snapshots.set(first, takeSnapshots(memo, tree, { objects, same, plain }, known))
}

const firstOf = (items: readonly Address[] = [], count: number) => items.slice(0, count)

const isPacked = ({ text }: Element) => text !== undefined && text.length <= PACKED_CHARS

function countPlain({ stock }: Encoder, elements: Element[]): number {
  const first = stock ? elements.findIndex(isPacked) : -1
  return first === -1 ? elements.length : first
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
    if (isPacked(element)) run.push(element.text as string)
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
