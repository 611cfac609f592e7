import { expect, test } from 'vitest'
import { matchesTag } from './entity-tags.ts'

test('entity tags are compared weakly, as if-none-match asks for', () => {
  const tag = '"abc"'
  for (const header of ['"abc"', 'W/"abc"', '*', '"x", "abc"', '"x",W/"abc"', ' "abc" '])
    expect(matchesTag(header, tag), header).toBe(true)
  for (const header of [undefined, '', 'abc', '"ABC"', '"x"', 'W/"x"', '"abc', 'w/"abc"'])
    expect(matchesTag(header, tag), header).toBe(false)
})
