import { randomBytes } from 'node:crypto'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { inParts } from './intake.ts'

const collect = async (parts: AsyncIterable<Uint8Array>) => {
  const found: Buffer[] = []
  for await (const part of parts) found.push(Buffer.from(part))
  return found
}

async function* cut(bytes: Uint8Array, sizes: number[]) {
  for (let at = 0, i = 0; at < bytes.length; i++) {
    const size = sizes[i % sizes.length] as number
    yield bytes.subarray(at, at + size)
    at += size
  }
}

describe('bytes that come', () => {
  test('are the same in parts, all but the last of one size', async () => {
    const sizes = fc.array(fc.integer({ min: 1, max: 300_000 }), { minLength: 1, maxLength: 5 })
    await fc.assert(
      fc.asyncProperty(
        fc.nat(700_000),
        sizes,
        fc.integer({ min: 1, max: 200_000 }),
        fc.nat(900_000),
        async (length, cuts, size, expected) => {
          const bytes = randomBytes(length)
          const free: Buffer[] = []
          const parts: Buffer[] = []
          for await (const part of inParts(cut(bytes, cuts), size, expected, free)) {
            parts.push(Buffer.from(part))
            free.push(part.fill(0))
          }
          expect(Buffer.concat(parts).equals(bytes)).toBe(true)
          expect(
            parts
              .map((part) => part.length)
              .slice(0, -1)
              .every((one) => one === size),
          ).toBe(true)
          expect(parts.every((part) => part.length > 0 && part.length <= size)).toBe(true)
        },
      ),
      { numRuns: 100 },
    )
  })

  test('cost no more when they come one by one', async () => {
    setFlagsFromString('--expose-gc')
    const gc = runInNewContext('gc') as () => void
    const live = () => {
      gc()
      const { heapUsed, arrayBuffers } = process.memoryUsage()
      return heapUsed + arrayBuffers
    }
    let most = 0
    const source = async function* () {
      for (let i = 0; i < 600_000; i++) {
        if (i % 190_000 === 0) most = Math.max(most, live())
        // as each comes from a connection: with memory of its own
        yield new Uint8Array(1)
      }
    }
    const before = live()
    expect(Buffer.concat(await collect(inParts(source(), 1 << 20)))).toHaveLength(600_000)
    expect(most - before).toBeLessThan(20_000_000)
  })
})
