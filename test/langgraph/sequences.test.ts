import { randomBytes } from 'node:crypto'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, test } from 'vitest'
import type { SaverOptions } from '../../src/checkpoints/service.ts'
import { engines, type TestDatabase } from '../harness.ts'
import { startPair } from './compare.ts'
import { act, GRAPHS, type Operation, operation, PrunableMemory } from './sequences.ts'

// what a saver may be told must not be seen in what a graph does
const options: Record<string, SaverOptions> = {
  'as it comes': {},
  rejecting: { concurrency: 'reject' },
  encrypting: { encryption: { keys: [randomBytes(32).toString('base64')] } },
}
const use = fc.record({
  graph: fc.constantFrom('plain' as const, 'delta' as const),
  saver: fc.constantFrom(...Object.keys(options)),
  operations: fc.array(operation, { minLength: 2, maxLength: 10, size: 'max' }),
})
// a subgraph that asks, run again from before it began
const askTwice: Operation[] = [
  { do: 'update', at: null, values: { sum: 1 }, as: 'start' },
  { do: 'go on', durability: 'async' },
  { do: 'go back', to: 0, durability: 'sync' },
]

for (const engine of engines) {
  describe.skipIf(!engine.available)(`any use of a graph as with MemorySaver on ${engine.name}`, () => {
    let opened: TestDatabase
    beforeAll(async () => {
      opened = await engine.open()
    })
    afterAll(() => opened?.close())
    let users = 0

    test('turns, answers, failures, forks, updates, prunes and deletes in any order', {
      timeout: 300_000,
    }, async () => {
      await fc.assert(
        fc.asyncProperty(use, async ({ graph, saver, operations }) => {
          const memory = new PrunableMemory()
          const pair = startPair(opened, `user-${++users}`, GRAPHS[graph], { memory, ...options[saver] })
          for (const one of operations) await pair.anyStep(act(pair, one))
          await pair.compareAll()
        }),
        {
          numRuns: 25,
          endOnFailure: true,
          examples: [[{ graph: 'plain', saver: 'rejecting', operations: askTwice }]],
        },
      )
    })
  })
}
