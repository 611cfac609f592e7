import type { Address } from './address.ts'
import type { Memo } from './memo.ts'
import type { Tree } from './tree.ts'

/**
 * The elements of one piece of a list as they were stored: the objects, the keys of each, and the values of all of them
 * in a row. To look at a thousand elements again this way touches a third of the memory that their entries in the memo
 * take, and is as much faster.
 */
export type Snapshot = { objects: object[]; keys: (readonly string[])[]; values: unknown[] }

/** Those of the first pieces of a list. */
export type Snapshots = { tree: Tree; pieces: Snapshot[] }

/** How many elements at the beginning are what they were, in whole pieces and up to `end`. */
export function countUnchanged({ tree, pieces }: Snapshots, list: readonly unknown[], end: number): number {
  const ends = tree.levels[0]?.ends ?? []
  let same = 0
  for (const [i, piece] of pieces.entries()) {
    const until = ends[i] as number
    if (until > end || !isUnchanged(piece, list, same)) break
    same = until
  }
  return same
}

function isUnchanged({ objects, keys, values }: Snapshot, list: readonly unknown[], start: number): boolean {
  let at = 0
  for (let i = 0; i < objects.length; i++) {
    const object = objects[i] as Record<string, unknown>
    if (list[start + i] !== object) return false
    const names = keys[i] as readonly string[]
    let n = 0
    for (const key in object) {
      if (key !== names[n] || !Object.is(object[key], values[at])) return false
      n++
      at++
    }
    if (n !== names.length) return false
  }
  return true
}

/**
 * The snapshots of a list that was just placed; those of `before` that have its first elements are taken over.
 * @param objects what the list held when it was read
 * @param same how many elements are those of the list before
 * @param plain how many are each a value of the tree
 */
export function takeSnapshots(
  memo: Memo,
  tree: Tree,
  { objects, same, plain }: { objects: readonly unknown[]; same: number; plain: number },
  before: Snapshots | undefined,
): Snapshots {
  const { items = [], ends = [] } = tree.levels[0] ?? {}
  const pieces: Snapshot[] = []
  let start = 0
  for (const [i, end] of ends.entries()) {
    if (end > plain) break
    const known = before !== undefined && end <= same && before.tree.levels[0]?.ends[i] === end
    const piece = (known ? before.pieces[i] : undefined) ?? takeOne(memo, objects, items, start, end)
    if (piece === undefined) break
    pieces.push(piece)
    start = end
  }
  return { tree, pieces }
}

function takeOne(
  memo: Memo,
  list: readonly unknown[],
  items: readonly Address[],
  start: number,
  end: number,
): Snapshot | undefined {
  const snapshot: Snapshot = { objects: [], keys: [], values: [] }
  for (let i = start; i < end; i++) {
    const object = list[i]
    if (typeof object !== 'object' || object === null) return undefined
    const entry = memo.look(object)
    if (entry === undefined || entry.stored.address !== items[i]) return undefined
    snapshot.objects.push(object)
    snapshot.keys.push(entry.picture.keys)
    for (const value of entry.picture.values) snapshot.values.push(value)
  }
  return snapshot
}
