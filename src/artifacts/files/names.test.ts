import fc from 'fast-check'
import { expect, test } from 'vitest'
import { numbered } from './names.ts'

test.each([
  ['report.pdf', 1, 'report (1).pdf'],
  ['report.pdf', 12, 'report (12).pdf'],
  ['report.pdf', 0, 'report.pdf'],
  ['report', 1, 'report (1)'],
  ['report (1).pdf', 1, 'report (1) (1).pdf'],
  ['archive.tar.gz', 1, 'archive.tar (1).gz'],
  ['.env', 1, '.env (1)'],
  ['.env.local', 1, '.env (1).local'],
  ['v1.2 final', 1, 'v1.2 final (1)'],
  ['ends with.', 1, 'ends with. (1)'],
  ['a.b/c', 1, 'a.b/c (1)'],
  ['a.b\\c', 1, 'a.b\\c (1)'],
  [`a.${'x'.repeat(21)}`, 1, `a.${'x'.repeat(21)} (1)`],
  [`a.${'x'.repeat(20)}`, 1, `a (1).${'x'.repeat(20)}`],
  ['Übersicht.ödt', 2, 'Übersicht (2).ödt'],
  ['', 1, ' (1)'],
])('%j as number %i is %j', (name, n, expected) => {
  expect(numbered(name, n)).toBe(expected)
})

test('numbers of one name are names of their own, and nothing of it is lost', () => {
  const name = fc.string({ unit: fc.constantFrom('a', '.', ' ', '(', ')', '1', '/', 'é'), maxLength: 12 })
  fc.assert(
    fc.property(name, fc.nat(200), fc.nat(200), (text, n, m) => {
      expect(numbered(text, n) === numbered(text, m)).toBe(n === m)
      if (n > 0) expect(numbered(text, n).replace(` (${n})`, '').length).toBe(text.length)
    }),
  )
})
