import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { type Address, createAddresser } from './address.ts'
import { buildTree, listValues, type Nodes, type Tree } from './tree.ts'

const addresser = createAddresser()
const addressFor = (n: number): Address => addresser.ofValue('json', Buffer.from(String(n)))
const toValues = (numbers: number[]) => numbers.map(addressFor)
const read = ({ tree, nodes }: { tree: Tree; nodes: Nodes }) =>
  listValues(tree.root, (one) => nodes.get(one)?.parts)
const sameTwice = (n: number) => Array.from({ length: n }, () => 7)

const lists = fc.oneof(
  fc.array(fc.integer({ min: 0, max: 5 }), { maxLength: 500 }),
  fc.array(fc.integer(), { maxLength: 3_000, size: 'max' }),
  fc.integer({ min: 0, max: 2_000 }).map(sameTwice),
)
/** Replaces `cut` elements at a place by others. */
const edits = fc.record({
  at: fc.double({ min: 0, max: 1, noNaN: true }),
  cut: fc.nat(5),
  add: fc.array(fc.integer(), { maxLength: 5 }),
})

describe('a list as a tree', () => {
  test('any list comes back as it was, and equal lists have one root', () => {
    fc.assert(
      fc.property(lists, (numbers) => {
        const values = toValues(numbers)
        const built = buildTree(values, addresser)
        expect(read(built)).toEqual(values)
        expect(buildTree([...values], addresser).tree.root).toBe(built.tree.root)
      }),
      { numRuns: 60 },
    )
  })

  test('lists that differ have roots that differ', () => {
    fc.assert(
      fc.property(lists, edits, (numbers, { at, cut, add }) => {
        const changed = [...numbers]
        changed.splice(Math.floor(at * numbers.length), cut, ...add)
        const same = changed.length === numbers.length && changed.every((n, i) => n === numbers[i])
        const [a, b] = [numbers, changed].map((list) => buildTree(toValues(list), addresser).tree.root)
        expect(a === b).toBe(same)
      }),
      { numRuns: 60 },
    )
  })

  test('a change anywhere makes few new nodes', () => {
    const distinct = fc.uniqueArray(fc.integer(), { minLength: 1_000, maxLength: 3_000, size: 'max' })
    let made = 0
    let runs = 0
    fc.assert(
      fc.property(distinct, edits, (numbers, { at, cut, add }) => {
        const before = buildTree(toValues(numbers), addresser)
        const changed = [...numbers]
        changed.splice(Math.floor(at * numbers.length), cut, ...add)
        const after = buildTree(toValues(changed), addresser)
        const fresh = [...after.nodes.keys()].filter((address) => !before.nodes.has(address))
        // worst where a piece was cut for its length, so that the next ones shift until content cuts again
        expect(fresh.length).toBeLessThan(20)
        made += fresh.length
        runs++
      }),
      { numRuns: 60 },
    )
    expect(made / runs).toBeLessThan(6)
  })

  test('from a list that begins the same the same tree is made, with only those of its nodes that are new', () => {
    fc.assert(
      fc.property(
        lists,
        edits,
        fc.double({ min: 0, max: 1, noNaN: true }),
        (numbers, { at, cut, add }, share) => {
          const before = buildTree(toValues(numbers), addresser)
          const changed = [...numbers]
          changed.splice(Math.floor(at * numbers.length), cut, ...add)
          let same = 0
          while (same < changed.length && same < numbers.length && changed[same] === numbers[same]) same++
          const values = toValues(changed)
          const whole = buildTree(values, addresser)
          const grown = buildTree(values, addresser, { tree: before.tree, same: Math.floor(share * same) })
          expect(grown.tree).toEqual(whole.tree)
          const nodes = new Map([...before.nodes, ...grown.nodes])
          expect(read({ tree: grown.tree, nodes })).toEqual(values)
          for (const [address, node] of grown.nodes) expect(whole.nodes.get(address)).toEqual(node)
        },
      ),
      { numRuns: 100 },
    )
  })

  test('a list that grows one by one stores a bounded number of parts a step, however long it is', () => {
    const known = new Set<Address>()
    const parts: number[] = []
    const values: Address[] = []
    for (let n = 0; n < 3_000; n++) {
      values.push(addressFor(n))
      if (n % 10 !== 0) continue
      const { nodes } = buildTree(values, addresser)
      let stored = 0
      for (const [address, { parts: of }] of nodes) if (!known.has(address)) stored += of.length
      for (const address of nodes.keys()) known.add(address)
      parts.push(stored)
    }
    const average = (of: number[]) => of.reduce((a, b) => a + b) / of.length
    expect(average(parts.slice(-100))).toBeLessThan(150)
    expect(average(parts.slice(-100)) / average(parts.slice(0, 100))).toBeLessThan(3)
  })
})
