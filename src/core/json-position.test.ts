import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { anyJson } from '../../test/arbitraries.ts'
import { findJsonError } from './json-position.ts'

const isJson = (text: string): boolean => {
  try {
    JSON.parse(text)
    return true
  } catch {
    return false
  }
}

/** The position in V8's message, for the mistakes where it has one. */
function positionOfV8(text: string): number | undefined {
  try {
    JSON.parse(text)
  } catch (error) {
    const found = /at position (\d+)/.exec((error as Error).message)?.[1]
    if (found !== undefined) return Number(found)
  }
  return undefined
}

const damaged = fc
  .tuple(
    anyJson.map((value) => JSON.stringify(value, null, 1)),
    fc.nat(),
    fc.constantFrom('', '}', ']', ',', ':', '"', '\\', '\n', '\t', 'x', '-', '1', '.', 'true', '{', '['),
    fc.nat({ max: 3 }),
  )
  .map(([text, at, put, cut]) => {
    const place = at % (text.length + 1)
    return text.slice(0, place) + put + text.slice(place + cut)
  })

describe('findJsonError', () => {
  test.each([
    ['{"title": tru}', 13, 1, 14],
    ['{\n "a": 1,\n "b" 2}', 16, 3, 6],
    ['', 0, 1, 1],
    ['{"a": 1', 7, 1, 8],
    ['{"a": "x', 8, 1, 9],
    ['[1, 2,]', 6, 1, 7],
    ['[1] 2', 4, 1, 5],
    ['[01]', 2, 1, 3],
    ['[1}', 2, 1, 3],
    ['"\\x"', 2, 1, 3],
    ['"\\u00g0"', 5, 1, 6],
    ['"\\', 2, 1, 3],
    ['"a\nb"', 2, 1, 3],
    ["{'a': 1}", 1, 1, 2],
    ['-', 1, 1, 2],
    [']', 0, 1, 1],
  ])('%j goes wrong at %i', (text, position, line, column) => {
    expect(findJsonError(text)).toEqual({ position, line, column })
  })

  test('finds a mistake exactly where V8 does, whenever V8 says where', () => {
    fc.assert(
      fc.property(damaged, (text) => {
        const found = findJsonError(text)
        expect(found === undefined).toBe(isJson(text))
        const expected = positionOfV8(text)
        if (expected !== undefined) expect(found?.position).toBe(expected)
      }),
      { numRuns: 2_000 },
    )
  })

  test('what stands before the place can still become JSON, so the place is not too far right', () => {
    fc.assert(
      fc.property(damaged, (text) => {
        const found = findJsonError(text)
        if (found === undefined) return
        // cut there, the text only ends too early
        const before = text.slice(0, found.position)
        expect(findJsonError(before)?.position ?? before.length).toBe(before.length)
      }),
      { numRuns: 1_000 },
    )
  })

  test('nesting and length are no matter', () => {
    const deep = '['.repeat(200_000)
    expect(findJsonError(deep)?.position).toBe(200_000)
    const long = `{"a":"${'\\n'.repeat(3_000_000)}`
    expect(findJsonError(long)?.position).toBe(long.length)
  })
})
