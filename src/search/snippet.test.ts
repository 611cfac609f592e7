import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { escapeHtml, LESS, START, STOP, snippetOf, toSnippet, wordsLike } from './snippet.ts'

const MARKUP = /<mark>|<\/mark>/g

/** What a page would show of a snippet; fails for one that is not safe in it. */
function shown(snippet: string): string {
  const rest = snippet.replace(MARKUP, '')
  expect(rest).not.toMatch(/[<>"']|&(?!(amp|lt|gt|quot|#39);)/)
  expect(snippet.isWellFormed()).toBe(true)
  // each mark is closed before the next one opens
  expect((snippet.match(MARKUP) ?? []).join('')).toMatch(/^(<mark><\/mark>)*$/)
  return rest
}

const hostile = fc
  .array(
    fc.oneof(
      fc.constantFrom(
        ...[
          '<script>alert(1)</script>',
          '<mark>',
          '</mark>',
          '<img src=x onerror=alert(1)>',
          '&lt;',
          '&',
          '"',
          "'",
        ],
        ...[
          '\u0000',
          '\u0001',
          '\ud800',
          '\udfff',
          START,
          STOP,
          LESS,
          ' ',
          '\n',
          'hotel',
          'HOTEL',
          '-->',
          ']]>',
        ],
      ),
      fc.string({ unit: 'binary', maxLength: 20 }),
      fc.string({ unit: 'grapheme', maxLength: 200 }),
    ),
    { maxLength: 40 },
  )
  .map((parts) => parts.join(''))

describe('snippets', () => {
  test('are safe in a page, whatever the text and the marks', () => {
    fc.assert(fc.property(hostile, (text) => void shown(toSnippet(text))))
  })

  test('of parts of a text are safe, whatever the text and the terms', () => {
    fc.assert(
      fc.property(hostile, fc.array(hostile, { maxLength: 4 }), (text, terms) => {
        shown(snippetOf(text, terms))
        shown(snippetOf(text, wordsLike(text, terms)))
      }),
    )
  })

  test('hold the text that is there', () => {
    expect(toSnippet(`a ${START}b${STOP} & ${LESS}i>`)).toBe('a <mark>b</mark> &amp; &lt;i&gt;')
    expect(toSnippet(`${STOP}a${START}${START}b`)).toBe('a<mark>b</mark>')
    expect(snippetOf('x ERR-4711 y err-4711', ['rr-47'])).toBe(
      'x E<mark>RR-47</mark>11 y e<mark>rr-47</mark>11',
    )
    expect(snippetOf('a.b a+b (c', ['a+b', '(c'])).toBe('a.b <mark>a+b</mark> <mark>(c</mark>')
    expect(snippetOf('no such', ['thing'])).toBe('no such')
    expect(escapeHtml(`<&>"'`)).toBe('&lt;&amp;&gt;&quot;&#39;')
  })

  test('are short, and not cut inside of a character', () => {
    const snippet = snippetOf(`${'🎉'.repeat(500)}needle${'🎉'.repeat(500)}`, ['needle'])
    expect(snippet).toContain('<mark>needle</mark>')
    expect(snippet.length).toBeLessThan(300)
    expect(toSnippet('🎉'.repeat(5_000)).length).toBeLessThan(610)
  })

  test('words that are spelt alike', () => {
    expect(wordsLike('no vegetarian options, Vegetarians!', ['vegetrian'])).toEqual([
      'vegetarian',
      'Vegetarians',
    ])
  })
})
