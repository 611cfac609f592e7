import { describe, expect, test } from 'vitest'
import { readFields, textsOf } from './embedding.ts'
import { parsePath } from './texts.ts'

const VALUE = {
  title: 'T',
  'a.b': 'dotted',
  meta: { year: 2020, ok: false, none: null },
  chapters: [{ content: 'one', notes: ['n1', 'n2'] }, { content: 'two' }, 'three'],
  empty: [],
}

describe('paths of texts', () => {
  test.each<[path: string, texts: string[]]>([
    ['title', ['T']],
    ['meta.year', ['2020']],
    ['meta.ok', ['false']],
    ['meta.none', []],
    ['meta.*', ['2020', 'false']],
    ['chapters[*].content', ['one', 'two']],
    ['chapters[0].content', ['one']],
    ['chapters[-1]', ['three']],
    ['chapters[-2].content', ['two']],
    ['chapters[9].content', []],
    ['chapters[*].notes[*]', ['n1', 'n2']],
    ['chapters[0].notes', [JSON.stringify(['n1', 'n2'], null, 2)]],
    ['none', []],
    ['title.length', []],
    ['constructor', []],
    ['$', [JSON.stringify(VALUE, null, 2)]],
  ])('%s', (path, texts) => {
    expect(textsOf(VALUE, readFields([path]))).toEqual(texts)
  })

  test.each(['', 'a[', 'a]', 'a[x]', 'a..b', 'a.', '[]'])('%j is not one', (path) => {
    expect(parsePath(path)).toBeUndefined()
    expect(() => readFields([path])).toThrowError(/is not a path/)
  })
})
