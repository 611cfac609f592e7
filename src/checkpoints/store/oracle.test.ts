import { InMemoryStore, type Operation } from '@langchain/langgraph-checkpoint'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { engines, type TestDatabase } from '../../../test/harness.ts'
import { storesOn } from '../../../test/stores.ts'

for (const engine of engines) {
  describe.skipIf(!engine.available)(`the store, beside InMemoryStore, on ${engine.name}`, () => {
    let opened: TestDatabase
    beforeAll(async () => {
      opened = await engine.open()
    })
    afterAll(() => opened?.close())
    const { newStore } = storesOn(() => opened)

    test('it does what InMemoryStore does, for any operations', async () => {
      const label = fc.constantFrom('a', 'b', 'ab', 'a b', '日')
      const namespace = fc.array(label, { minLength: 1, maxLength: 3 })
      const key = fc.constantFrom('1', '2')
      const scalar = fc.constantFrom<unknown>(null, 1, 2, 'x', 'y', true)
      const value = fc.record({ f: scalar, g: scalar }, { requiredKeys: [] })
      const filter = fc.dictionary(
        fc.constantFrom('f', 'g'),
        fc.oneof(
          scalar,
          fc.record({ $ne: scalar }),
          fc.record({ $eq: scalar }),
          fc.record({ $in: fc.array(scalar) }),
        ),
        { maxKeys: 2 },
      )
      const pattern = fc.array(fc.oneof(label, fc.constant('*')), { minLength: 1, maxLength: 2 })
      const condition = fc.record({
        matchType: fc.constantFrom('prefix' as const, 'suffix' as const),
        path: pattern,
      })
      const operation = fc.oneof(
        { weight: 3, arbitrary: fc.record({ namespace, key, value: fc.option(value) }) },
        fc.record({ namespace, key }),
        fc.record({
          namespacePrefix: fc.array(label, { maxLength: 2 }),
          filter: fc.option(filter, { nil: undefined }),
          limit: fc.constant(1_000),
        }),
        fc.record({
          matchConditions: fc.array(condition, { maxLength: 2 }),
          maxDepth: fc.option(fc.integer({ min: 1, max: 3 }), { nil: undefined }),
          limit: fc.constant(1_000),
          offset: fc.constant(0),
        }),
      )
      const plain = (result: unknown): unknown => {
        if (!Array.isArray(result)) return result === null || result === undefined ? null : toPlain(result)
        return result.map((one) => JSON.stringify(Array.isArray(one) ? one : toPlain(one))).sort()
      }
      const toPlain = (item: object) => {
        const { namespace: at, key: name, value: held } = item as Record<string, unknown>
        return [at, name, Object.entries(held as object).sort()]
      }
      const batches = fc.array(fc.array(operation, { maxLength: 6 }), { maxLength: 6 })
      await fc.assert(
        fc.asyncProperty(batches, async (all) => {
          const ours = newStore()
          const oracle = new InMemoryStore()
          for (const operations of all as Operation[][]) {
            const expected = await readThenPut(oracle, operations)
            const found = await ours.batch(operations)
            expect((found as unknown[]).map(plain)).toEqual(expected.map(plain))
            forgetEmpty(oracle)
          }
        }),
        { numRuns: 60, interruptAfterTimeLimit: 40_000 },
      )
    })
  })
}

/** In one batch a put would change the very item that a get of the same batch has given. */
async function readThenPut(oracle: InMemoryStore, operations: Operation[]): Promise<unknown[]> {
  const isPut = (operation: Operation) => 'value' in operation
  const read = await oracle.batch(operations.filter((operation) => !isPut(operation)))
  const results: unknown[] = structuredClone(read)
  await oracle.batch(operations.filter(isPut))
  return operations.map((operation) => (isPut(operation) ? undefined : results.shift()))
}

/** It would go on to list namespaces whose items were all removed. */
function forgetEmpty(oracle: InMemoryStore): void {
  const { data } = oracle as unknown as { data: Map<string, Map<string, unknown>> }
  for (const [namespace, items] of data) if (items.size === 0) data.delete(namespace)
}
