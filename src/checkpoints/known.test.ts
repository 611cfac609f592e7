import { describe, expect, test } from 'vitest'
import { createKnown } from './known.ts'

const some = (name: string, count: number) => Array.from({ length: count }, (_, i) => `${name} ${i}`)

describe('what is known to be stored', () => {
  test('is of a thread, until it is forgotten', () => {
    const known = createKnown()
    known('a').add(['x'])
    expect([known('a').has('x'), known('b').has('x'), known('a').listsOf('').has('x')]).toEqual([
      true,
      false,
      true,
    ])
    known('a').forget()
    expect(known('a').has('x')).toBe(false)
  })

  test('is kept of so many values, of the threads that were used last', () => {
    const known = createKnown(100)
    for (const name of ['a', 'b', 'c']) known(name).add(some(name, 40))
    expect(['a', 'b', 'c'].map((name) => known(name).has(`${name} 0`))).toEqual([false, true, true])
    known('b').add(['again'])
    known('d').add(some('d', 40))
    expect(['b', 'c', 'd'].map((name) => known(name).has(`${name} 0`))).toEqual([true, false, true])
    known('b').forget()
    known('e').add(some('e', 60))
    expect(['d', 'e'].map((name) => known(name).has(`${name} 0`))).toEqual([true, true])
    // one thread that has more alone is known all the same
    known('f').add(some('f', 200))
    expect(['e', 'f'].map((name) => known(name).has(`${name} 0`))).toEqual([false, true])
  })
})
