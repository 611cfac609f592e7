import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { anyJson, anyText, exactNumber, numberText } from '../../test/arbitraries.ts'
import {
  canonicalJson,
  decodeJsonb,
  digestJson,
  encodeJson,
  encodeJsonb,
  MAX_JSON_DEPTH,
  parseJson,
} from './json.ts'

const isStorable = (text: string) => text.isWellFormed() && !text.includes('\0')
const nested = (levels: number, inner = '') => '['.repeat(levels) + inner + ']'.repeat(levels)

describe('parseJson', () => {
  test.each([
    '9007199254740993',
    '12345678901234567890',
    '1e400',
    '-1E-400',
    '0.1234567890123456789',
    '123456789.123456789',
    '1234567.1234567891',
    '-0',
    '-0.0',
    '4.9406564584124654417656879286822e-324',
  ])('writes %s again as it was', (text) => {
    expect(JSON.stringify(parseJson(`{"n":[${text}]}`))).toBe(`{"n":[${text}]}`)
  })

  test('leaves numbers that a double holds as numbers', () => {
    expect(parseJson('[1, 1.0, 0.1, 1e3, 9007199254740991, -5, 1.5e-7]')).toEqual([
      1, 1, 0.1, 1000, 9007199254740991, -5, 1.5e-7,
    ])
  })

  test('no number changes its value', () => {
    fc.assert(
      fc.property(numberText, (text) => {
        const written = JSON.stringify(parseJson(`[${text}]`)).slice(1, -1)
        expect(exactNumber(written)).toBe(exactNumber(text))
      }),
      { numRuns: 2_000 },
    )
  })

  test.each(['N', '[N]', '[0,N]', '[\t-0.5,\nN ]', '{"a":N}', '{"a" :\r\n N,"b":"3e5-00"}', '["1e5",N]'])(
    'a number that a double would change is kept wherever it stands: %j',
    (place) => {
      for (const number of [
        '12345678901234567890',
        '-1.2345678901234567',
        '1e400',
        '-1E-400',
        '-0',
        '-0.0',
      ]) {
        const text = place.replace('N', number)
        expect(JSON.stringify(parseJson(text))).toBe(text.replace(/\s/g, ''))
      }
    },
  )

  test('refuses what is no JSON', () => {
    for (const text of ['', '{', '{"a":1e}', '01', '[1,]', 'NaN', "{'a':1}"]) {
      expect(() => parseJson(text), text).toThrow(SyntaxError)
    }
  })

  test('refuses nesting that would overflow the stack, in words', () => {
    expect(() => parseJson(nested(200_000, '1e5'))).toThrow(/nested deeper/)
  })
})

describe('json and jsonb texts', () => {
  test('encodeJson is read back with its digits and key order', () => {
    fc.assert(
      fc.property(anyJson, (value) => {
        expect(JSON.stringify(parseJson(encodeJson(value)))).toBe(JSON.stringify(value))
      }),
    )
  })

  test('jsonb: any value comes back, and PostgreSQL could hold the text', () => {
    fc.assert(
      fc.property(anyJson, (value) => {
        const text = encodeJsonb(value)
        JSON.parse(text, (key, item) => {
          for (const part of [key, item]) if (typeof part === 'string') expect(isStorable(part)).toBe(true)
        })
        expect(JSON.stringify(decodeJsonb(text))).toBe(JSON.stringify(value))
      }),
      { numRuns: 1_000 },
    )
  })

  test('jsonb does not spell out numbers with large exponents', () => {
    for (const text of ['1e100000', '-1.5e-400', '1e308', '1e999999']) {
      const value = { a: [parseJson(text)], b: 1e21 }
      const stored = encodeJsonb(value)
      expect(JSON.parse(stored).a[0], text).toBeTypeOf('string')
      expect(JSON.parse(stored).b).toBe(1e21)
      expect(JSON.stringify(decodeJsonb(stored))).toBe(JSON.stringify(value))
    }
  })

  test('jsonb keeps digits and a key named __proto__ beside a text that needs encoding', () => {
    const text = '{"nul":"\\u0000","id":12345678901234567890,"__proto__":{"\\ud800":1}}'
    expect(JSON.stringify(decodeJsonb(encodeJsonb(parseJson(text))))).toBe(text)
  })

  test('undefined, functions and cycles are invalid input', () => {
    const cycle: { self?: unknown } = {}
    cycle.self = cycle
    for (const value of [undefined, () => 1, cycle, { n: 1n }]) {
      expect(() => encodeJson(value)).toThrow(expect.objectContaining({ code: 'invalid_input' }))
    }
  })

  test(`nesting up to ${MAX_JSON_DEPTH} levels is stored, more is refused`, () => {
    const ok = JSON.parse(nested(MAX_JSON_DEPTH))
    expect(encodeJson(ok)).toBe(nested(MAX_JSON_DEPTH))
    expect(decodeJsonb(encodeJsonb(ok))).toEqual(ok)
    for (const levels of [MAX_JSON_DEPTH + 2, 200_000]) {
      const deep = JSON.parse(nested(levels))
      expect(() => encodeJson(deep)).toThrow(/nested deeper than 500/)
      expect(() => encodeJsonb(deep)).toThrow(/nested deeper than 500/)
      expect(() => digestJson(deep)).toThrow(/nested deeper than 500/)
    }
  })
})

describe('digestJson', () => {
  const shuffled = (value: unknown): unknown => {
    if (typeof value !== 'object' || value === null || 'rawJSON' in value) return value
    if (Array.isArray(value)) return value.map(shuffled)
    return Object.fromEntries(
      Object.entries(value)
        .map(([key, item]) => [key, shuffled(item)])
        .reverse(),
    )
  }

  test('is equal whatever the order of keys', () => {
    fc.assert(
      fc.property(anyJson, (value) => {
        expect(digestJson(shuffled(value))).toBe(digestJson(value))
      }),
    )
  })

  test('is equal for a value and what comes back from its text', () => {
    fc.assert(
      fc.property(anyJson, (value) => {
        expect(digestJson(parseJson(encodeJson(value)))).toBe(digestJson(value))
      }),
    )
  })

  test('tells values apart', () => {
    const texts = [
      '1',
      '"1"',
      '[1]',
      '{"a":1}',
      '{"a":"1"}',
      'null',
      '[]',
      '{}',
      '""',
      '"\\u0000"',
      '"\\ud800"',
      '"\\ud801"',
      '12345678901234567890',
      '12345678901234567891',
      'true',
      '[1,2]',
      '[2,1]',
      '[[1],2]',
      '1e400',
      '-1',
    ]
    expect(new Set(texts.map((text) => digestJson(parseJson(text)))).size).toBe(texts.length)
  })

  test('one number written in several ways is one value', () => {
    for (const text of ['1e400', '10e399', '0.1e401', '1.0e400']) {
      expect(digestJson(parseJson(text)), text).toBe(digestJson(parseJson('1e400')))
    }
  })

  test('canonical JSON of any value is what sorting by hand gives', () => {
    const byHand = (value: unknown): string => {
      if (Array.isArray(value)) return `[${value.map(byHand).join()}]`
      if (typeof value !== 'object' || value === null || 'rawJSON' in value)
        return JSON.stringify(value) ?? 'null'
      const fields = Object.entries(value).filter(([, item]) => item !== undefined)
      const sorted = fields.sort(([a], [b]) => (a < b ? -1 : 1))
      return `{${sorted.map(([key, item]) => `${JSON.stringify(key)}:${byHand(item)}`).join()}}`
    }
    const odd = fc.constantFrom(undefined, NaN, Infinity, -0, '__proto__')
    const key = fc.oneof(anyText, fc.constantFrom('10', '9', '1a', '__proto__', 'a', 'B', ''))
    const fields = fc
      .array(fc.tuple(key, fc.oneof(anyJson, odd)), { maxLength: 8 })
      .map((all) => Object.fromEntries(all))
    const value = fc.oneof(anyJson, fields, fc.array(fc.oneof(odd, fields, anyJson), { maxLength: 4 }))
    // numbers that only their text holds are written in one of several ways: other tests look at them
    const plain = value.filter((one) => !/\d{16}/.test(JSON.stringify(one) ?? ''))
    fc.assert(
      fc.property(plain, (one) => {
        expect(canonicalJson(one)).toBe(byHand(one))
      }),
      { numRuns: 3_000 },
    )
  })

  test('canonical JSON has sorted keys, dates as their text, and no undefined', () => {
    const when = new Date('2026-01-31T12:00:00Z')
    expect(canonicalJson({ b: [undefined, when], a: undefined, A: { z: 1, y: null } })).toBe(
      '{"A":{"y":null,"z":1},"b":[null,"2026-01-31T12:00:00.000Z"]}',
    )
  })
})
