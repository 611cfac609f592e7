import { type Address, type Addresser, lowBits } from './address.ts'

/** A node names its parts in order: addresses of other nodes, or at the lowest level of values. */
export type Nodes = Map<Address, Address[]>

// A cut after every part whose address ends in five zero bits makes 32 parts a node on average.
const CUT_MASK = 0b11111
const MIN_PARTS = 4
const MAX_PARTS = 128

/**
 * Cuts a list where its content says so, not by counting: what is before and behind a change falls into the same pieces
 * as before. (Content-defined chunking; as a tree, a Merkle search over positions.)
 */
export function cut<T>(items: readonly T[], bitsOf: (item: T) => number): T[][] {
  const pieces: T[][] = []
  let start = 0
  for (let i = 0; i < items.length; i++) {
    const length = i + 1 - start
    const ends = length >= MIN_PARTS && (bitsOf(items[i] as T) & CUT_MASK) === 0
    if (!ends && length < MAX_PARTS && i + 1 < items.length) continue
    pieces.push(items.slice(start, i + 1))
    start = i + 1
  }
  return pieces
}

/** The nodes of a list of values, its root among them. Equal lists have equal roots; an empty one has a node, too. */
export function buildTree(
  values: readonly Address[],
  { ofNode }: Addresser,
): { root: Address; nodes: Nodes } {
  const nodes: Nodes = new Map()
  const add = (parts: Address[]): Address => {
    const address = ofNode(parts)
    nodes.set(address, parts)
    return address
  }
  let level = values
  do {
    const pieces = level.length === 0 ? [[]] : cut(level, lowBits)
    level = pieces.map(add)
  } while (level.length > 1)
  return { root: level[0] as Address, nodes }
}

/**
 * The values below a root, in order.
 * @param partsOf the parts of a node, undefined for a value
 */
export function listValues(
  root: Address,
  partsOf: (address: Address) => readonly Address[] | undefined,
): Address[] {
  const values: Address[] = []
  const visit = (address: Address) => {
    const parts = partsOf(address)
    if (parts === undefined) values.push(address)
    else for (const part of parts) visit(part)
  }
  visit(root)
  return values
}
