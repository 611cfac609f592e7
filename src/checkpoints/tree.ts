import { type Address, type Addresser, lowBits } from './address.ts'

/** A node names its parts in order: addresses of other nodes, or, where `height` is 0, of values. */
export type TreeNode = { parts: Address[]; height: number }
export type Nodes = Map<Address, TreeNode>

/** A list cut into nodes, these cut into nodes, up to the one that is the root. */
export type Tree = { root: Address; levels: Level[] }

/** What is cut, the lowest level being the list itself, and where each piece ends. */
type Level = { items: readonly Address[]; ends: readonly number[] }

// A cut after every part whose address ends in five zero bits makes 32 parts a node on average.
const CUT_MASK = 0b11111
const MIN_PARTS = 4
const MAX_PARTS = 128

/**
 * Cuts a list where its content says so, not by counting: what is before and behind a change falls into the same pieces
 * as before. (Content-defined chunking; as a tree, a Merkle search over positions.)
 */
export function cut<T>(items: readonly T[], bitsOf: (item: T) => number): T[][] {
  let start = 0
  return endsOf(items, bitsOf, 0).map((end) => {
    const piece = items.slice(start, end)
    start = end
    return piece
  })
}

/** Where the pieces end of what is at `start` and behind. */
function endsOf<T>(items: readonly T[], bitsOf: (item: T) => number, start: number): number[] {
  const ends: number[] = []
  let from = start
  for (let i = start; i < items.length; i++) {
    const length = i + 1 - from
    const closes = length >= MIN_PARTS && (bitsOf(items[i] as T) & CUT_MASK) === 0
    if (!closes && length < MAX_PARTS && i + 1 < items.length) continue
    from = i + 1
    ends.push(from)
  }
  return ends
}

/**
 * The tree of a list of values, and its nodes by address, the root among them. Equal lists have equal trees; an empty
 * one has a node, too.
 * @param before a list that begins with the same values, `same` of them: nodes of these only are not made again, and
 * not among the nodes that are returned
 */
export function buildTree(
  values: readonly Address[],
  { ofNode }: Addresser,
  before?: { tree: Tree; same: number },
): { tree: Tree; nodes: Nodes } {
  const nodes: Nodes = new Map()
  const levels: Level[] = []
  let items = values
  let same = before?.same ?? 0
  do {
    const was = before?.tree.levels[levels.length]
    const kept = was === undefined ? 0 : countKept(was, same)
    const start = kept === 0 ? 0 : (was?.ends[kept - 1] as number)
    const ends = items.length === 0 ? [0] : endsOf(items, lowBits, start)
    const above = before?.tree.levels[levels.length + 1]?.items.slice(0, kept) ?? []
    let from = start
    for (const end of ends) {
      const parts = items.slice(from, end)
      const address = ofNode(parts)
      nodes.set(address, { parts, height: levels.length })
      above.push(address)
      from = end
    }
    levels.push({ items, ends: kept === 0 ? ends : [...(was?.ends.slice(0, kept) ?? []), ...ends] })
    items = above
    same = kept
  } while (items.length > 1)
  return { tree: { root: items[0] as Address, levels }, nodes }
}

/** How many pieces are within what is the same. The last one ended only because the list did. */
function countKept({ ends }: Level, same: number): number {
  let kept = 0
  while (kept < ends.length - 1 && (ends[kept] as number) <= same) kept++
  return kept
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
