import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { anyText } from '../../test/arbitraries.ts'
import { parseWithExactKeys } from './exact-keys.ts'
import { parseJson } from './json.ts'

describe('keys with escapes', () => {
  test('are not taken for a key with a backslash that was read before', () => {
    for (const text of ['{"a":1,"\\\\":2}', '{"a":1,"\\n":2}', '{"a":1,"x\\\\":2}', '{"a":1,"x\\"y":2}']) {
      expect(JSON.stringify(parseJson(text))).toBe(text)
    }
  })

  test('of any text, in any order, come back as they are', () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(anyText, anyText), { maxLength: 5 }), (pairs) => {
        const value = Object.fromEntries(pairs)
        expect(Object.entries(parseWithExactKeys(JSON.stringify(value)) as object)).toEqual(
          Object.entries(value),
        )
      }),
      { numRuns: 2_000 },
    )
  })

  test('in a text that is not JSON leave the place of the mistake as it is', () => {
    expect(() => parseWithExactKeys('{"a\\n": 1, }')).toThrow(/position 11/)
  })

  test('beside a text with millions of escapes are found, too', () => {
    const value = { a: 'x\n'.repeat(5_000_000), 'k\n': 1 }
    expect(parseWithExactKeys(JSON.stringify(value))).toEqual(value)
  })

  test('with a mark of our own are not mistaken for hidden ones', () => {
    const value = { '\ufffeYQ': 1, 'b\n': { '\ufffe': [1, { '\\': 2 }] } }
    expect(parseWithExactKeys(JSON.stringify(value))).toEqual(value)
  })
})
