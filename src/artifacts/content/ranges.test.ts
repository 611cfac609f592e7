import fc from 'fast-check'
import { expect, test } from 'vitest'
import { readRange } from './ranges.ts'

// RFC 9110, section 14.1.2, for a representation of 10,000 bytes
test.each([
  ['bytes=0-499', { start: 0, end: 499 }],
  ['bytes=500-999', { start: 500, end: 999 }],
  ['bytes=-500', { start: 9_500, end: 9_999 }],
  ['bytes=9500-', { start: 9_500, end: 9_999 }],
  ['bytes=0-0', { start: 0, end: 0 }],
  ['bytes=-1', { start: 9_999, end: 9_999 }],
  ['bytes=0-99999999', { start: 0, end: 9_999 }],
  ['bytes=-99999999', { start: 0, end: 9_999 }],
  ['BYTES=1-2', { start: 1, end: 2 }],
  ['bytes= 1 - 2 ', { start: 1, end: 2 }],
  ['bytes=10000-', 'none'],
  ['bytes=10000-10001', 'none'],
  ['bytes=-0', 'none'],
  [`bytes=${'9'.repeat(400)}-`, 'none'],
  [`bytes=0-${'9'.repeat(400)}`, { start: 0, end: 9_999 }],
  // not valid: the header is ignored (section 14.2)
  ['bytes=5-4', undefined],
  ['bytes=-', undefined],
  ['bytes=', undefined],
  ['bytes', undefined],
  ['bytes=a-b', undefined],
  ['bytes=1.5-2', undefined],
  ['bytes=--1', undefined],
  ['bytes=0x1-2', undefined],
  ['items=0-1', undefined],
  ['', undefined],
  // a server may ignore what it does not want to answer in parts
  ['bytes=0-0,-1', undefined],
  ['bytes=0-1, 5-6', undefined],
])('%s', (header, range) => {
  expect(readRange(header, 10_000)).toEqual(range)
})

test('of nothing there is no part', () => {
  expect(readRange(undefined, 0)).toBeUndefined()
  for (const header of ['bytes=0-', 'bytes=0-0', 'bytes=-1', 'bytes=-0'])
    expect(readRange(header, 0)).toBe('none')
})

test('it names the bytes that a reader of the RFC would pick one by one', () => {
  const position = fc.option(fc.nat(12), { nil: undefined })
  fc.assert(
    fc.property(fc.nat(10), position, position, (size, first, last) => {
      const all = Array.from({ length: size }, (_, at) => at)
      const picked =
        first === undefined
          ? all.slice(Math.max(0, size - (last ?? 0)))
          : all.filter((at) => at >= first && (last === undefined || at <= last))
      const isValid = first === undefined ? last !== undefined : last === undefined || last >= first
      const range = readRange(`bytes=${first ?? ''}-${last ?? ''}`, size)
      if (!isValid) expect(range).toBeUndefined()
      else if (picked.length === 0) expect(range).toBe('none')
      else expect(range).toEqual({ start: picked[0], end: picked.at(-1) })
    }),
    { numRuns: 2_000 },
  )
})
