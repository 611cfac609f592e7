import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { engines, type TestDatabase } from '../../test/harness.ts'
import { extendPath, unknownPath } from './path.ts'
import type { Message, MessageQuery, NewMessage } from './schema.ts'

// seqs from 1, each with a parent below it or none: mostly the one before, often one that is not far, sometimes any
const anyTree = (maxLength: number) =>
  fc
    .array(fc.tuple(fc.double({ min: 0, max: 0.999, noNaN: true }), fc.integer({ max: 19, min: 0 })), {
      minLength: 1,
      maxLength,
    })
    .map((choices) =>
      choices.map(([where, dice], i) => {
        if (dice === 19) return null
        if (dice > 15) return Math.floor(where * (i + 1)) || null
        return (dice > 12 ? i - Math.floor(where * Math.min(i, 5)) : i) || null
      }),
    )

function pathTo(parents: (number | null)[], leaf: number): number[] {
  const path: number[] = []
  for (let at: number | null = leaf; at !== null; at = parents[at - 1] ?? null) path.unshift(at)
  return path
}

test('the stretches of a thread are the path to a message, learnt in any portions', () => {
  const property = fc.property(anyTree(60), fc.array(fc.nat(60), { maxLength: 5 }), (parents, portions) => {
    const leaf = parents.length
    let known = unknownPath(leaf)
    for (const after of [...portions.sort((a, b) => b - a), 0]) {
      if (known.rest <= after) continue
      const turns = parents
        .map((parentSeq, i) => ({ seq: i + 1, parentSeq }))
        .filter(({ seq, parentSeq }) => seq > after && seq <= known.rest && parentSeq !== seq - 1)
      known = extendPath(known, after, turns.reverse())
    }
    const found = known.stretches.flatMap(({ first, last }) =>
      Array.from({ length: last - first + 1 }, (_, i) => last - i),
    )
    expect(found.reverse()).toEqual(pathTo(parents, leaf))
    expect(known.rest).toBe(0)
  })
  fc.assert(property, { numRuns: 1_000 })
})

const user = (content: unknown, more: Partial<NewMessage> = {}): NewMessage => ({
  role: 'user',
  content,
  ...more,
})

for (const engine of engines) {
  describe.skipIf(!engine.available)(`paths on ${engine.name}`, () => {
    let opened: TestDatabase
    beforeAll(async () => {
      opened = await engine.open()
    })
    afterAll(() => opened?.close())
    const scope = { userId: 'walker' }

    async function plant(parents: (number | null)[]): Promise<{ thread: string; ids: string[] }> {
      const thread = (await opened.tb.threads.create(scope)).id
      const messages = parents.map((parent, i) =>
        user(i + 1, { messageId: `m${i + 1}`, parentId: parent === null ? null : `m${parent}` }),
      )
      const [outcome] = await opened.tb.messages.appendMany(scope, [{ threadId: thread, messages }])
      expect(outcome).toEqual({ added: parents.length })
      const ids: string[] = []
      for (let after = 0; after < parents.length; after = ids.length) {
        const { items } = await opened.tb.messages.list(scope, thread, { after, limit: 200 })
        ids.push(...items.map(({ id }) => id))
      }
      return { thread, ids }
    }

    /** All pages of a query, one after the other. */
    async function pages(thread: string, query: MessageQuery): Promise<number[][]> {
      const found: number[][] = []
      let cursor: string | undefined
      do {
        const page: { items: Message[]; nextCursor?: string } = await opened.tb.messages.list(scope, thread, {
          ...query,
          cursor,
        })
        found.push(page.items.map(({ seq }) => seq))
        cursor = page.nextCursor
      } while (cursor !== undefined)
      return found
    }

    const inPages = (seqs: number[], limit: number) => {
      const found: number[][] = []
      for (let i = 0; i === 0 || i < seqs.length; i += limit) found.push(seqs.slice(i, i + limit))
      return found
    }

    test('the path behind a page goes on where it does now, though the message that it went on from is gone', async () => {
      // 1 is another beginning; the path to 5 is 2, 3, 4, 5
      const { thread, ids } = await plant([null, null, 2, 3, 4])
      const [, second, third, fourth, leaf] = ids as [string, string, string, string, string]
      expect(await pages(thread, { leaf, after: 2, limit: 9 })).toEqual([[3, 4, 5]])
      for (const id of [fourth, third, second]) await opened.tb.messages.delete(scope, thread, id)
      expect(await pages(thread, { leaf, limit: 1, order: 'asc' })).toEqual([[5]])
      expect(await pages(thread, { leaf, limit: 1, order: 'desc' })).toEqual([[5]])
      // another one, of which the first page is read, and the rest later
      const other = await plant([null, null, 2, 3, 4])
      const at = { leaf: other.ids[4] as string, order: 'desc' as const }
      expect(await pages(other.thread, { ...at, after: 2, limit: 9 })).toEqual([[5, 4, 3]])
      await opened.tb.messages.delete(scope, other.thread, other.ids[1] as string)
      expect(await pages(other.thread, { ...at, limit: 9 })).toEqual([[5, 4, 3]])
    })

    test('any page of any path of any tree, also while messages are deleted', async () => {
      const anyQuery = fc.record({
        leaf: fc.nat(),
        before: fc.option(fc.nat(60), { nil: undefined }),
        after: fc.option(fc.nat(60), { nil: undefined }),
        order: fc.constantFrom('asc' as const, 'desc' as const, undefined),
        limit: fc.integer({ min: 1, max: 12 }),
        deleted: fc.option(fc.nat(), { nil: undefined, freq: 2 }),
      })
      const property = fc.asyncProperty(
        anyTree(60),
        fc.array(anyQuery, { minLength: 1, maxLength: 6 }),
        async (tree, queries) => {
          const parents = [...tree]
          const { thread, ids } = await plant(parents)
          const gone = new Set<number>()
          for (const { leaf: place, deleted, ...query } of queries) {
            const dead = deleted === undefined ? 0 : (deleted % parents.length) + 1
            if (dead > 0 && !gone.has(dead) && gone.size < parents.length - 1) {
              await opened.tb.messages.delete(scope, thread, ids[dead - 1] as string)
              gone.add(dead)
              for (const [i, parent] of parents.entries())
                if (parent === dead) parents[i] = parents[dead - 1] ?? null
            }
            const seqs = parents.map((_, i) => i + 1).filter((seq) => !gone.has(seq))
            const leaf = seqs[place % seqs.length] as number
            const { before, after, limit } = query
            const order = query.order ?? (before !== undefined && after === undefined ? 'desc' : 'asc')
            const expected = pathTo(parents, leaf).filter(
              (seq) => seq < (before ?? Infinity) && seq > (after ?? 0),
            )
            if (order === 'desc') expected.reverse()
            const found = await pages(thread, { ...query, leaf: ids[leaf - 1] })
            expect(found).toEqual(inPages(expected, limit))
          }
          const newest = Math.max(...parents.map((_, i) => (gone.has(i + 1) ? 0 : i + 1)))
          const read: number[] = []
          for await (const page of opened.tb.messages.readPath(scope, thread, parents.length))
            read.push(...page.map(({ seq }) => seq))
          expect(read).toEqual(pathTo(parents, newest))
        },
      )
      await fc.assert(property, { numRuns: 60 })
    })

    test('a path that is deep, and one that leaves the thread often', { timeout: 60_000 }, async () => {
      const size = 2_000
      for (const parents of [
        Array.from({ length: size }, (_, i) => i || null),
        // two branches that take turns
        Array.from({ length: size }, (_, i) => (i < 2 ? null : i - 1)),
        // far apart
        Array.from({ length: size }, (_, i) => (i < 500 ? i || null : i - 499)),
      ]) {
        const { thread, ids } = await plant(parents)
        const path = pathTo(parents, size)
        const leaf = ids[size - 1]
        const down = [...path].reverse()
        expect(await pages(thread, { leaf, order: 'desc', limit: 150 })).toEqual(inPages(down, 150))
        expect(await pages(thread, { leaf, limit: 200 })).toEqual(inPages(path, 200))
        const other = pathTo(parents, size - 1)
        expect(await pages(thread, { leaf: ids[size - 2], limit: 200 })).toEqual(inPages(other, 200))
        const middle = { leaf, before: 1_001, after: 700, limit: 200 }
        const inside = path.filter((seq) => seq < 1_001 && seq > 700)
        expect(await pages(thread, middle)).toEqual(inPages(inside, 200))
      }
    })

    test('a page ends before it is larger than 16 MB, and the next goes on', {
      timeout: 60_000,
    }, async () => {
      const thread = (await opened.tb.threads.create(scope)).id
      const sizes = [7, 7, 7, 20, 1, 1, 7, 9]
      for (const [i, megabytes] of sizes.entries()) {
        const big = 'x'.repeat(megabytes * 1_000_000)
        await opened.tb.messages.append(scope, thread, [
          i % 2 === 0 ? user(big) : user(i, { toolOutput: big }),
        ])
      }
      const [newest] = (await opened.tb.messages.list(scope, thread, { order: 'desc', limit: 1 })).items
      for (const leaf of [undefined, newest?.id]) {
        expect(await pages(thread, { leaf })).toEqual([[1, 2], [3], [4], [5, 6, 7], [8]])
        expect(await pages(thread, { leaf, order: 'desc' })).toEqual([[8, 7], [6, 5], [4], [3, 2], [1]])
        expect(await pages(thread, { leaf, limit: 2 })).toEqual([[1, 2], [3], [4], [5, 6], [7, 8]])
      }
      const read: number[][] = []
      for await (const page of opened.tb.messages.readPath(scope, thread, 8))
        read.push(page.map(({ seq }) => seq))
      expect(read).toEqual([[1, 2], [3], [4], [5, 6, 7], [8]])
    })
  })
}
