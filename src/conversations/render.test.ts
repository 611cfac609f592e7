import { describe, expect, test } from 'vitest'
import { answerOf, conversationOf } from '../../test/conversation-stores.ts'
import { createMatcher } from './matches.ts'
import { renderConversation } from './render.ts'
import type { Conversation } from './schema.ts'

const markdown = (conversation: unknown) => renderConversation(conversation as Conversation, 'markdown')

describe('a conversation as Markdown', () => {
  test('has its title, questions and stages in order', () => {
    const messages = [
      { role: 'user', content: 'Why?\n\nReally?' },
      { role: 'assistant', ...answerOf('so') },
    ]
    expect(markdown(conversationOf('c', messages))).toBe(`# Trip

*2026-01-02T03:04:05.678+00:00, conversation c*

## Question 1

> Why?
>
> Really?

### Stage 1: answers

#### one/a

> A says so

#### two/b

> B says so

### Stage 2: rankings

- Response A: one/a
- Response B: two/b

#### one/a

> 1. Response B

#### two/b

> 1. Response A

#### Together

1. one/a: 1.5 on average of 2
2. two/b: 1.5 on average of 2

### Stage 3: final answer

*chair/c*

> Finally so
`)
  })

  test('keeps what was written within its quotes', () => {
    const odd = '# No heading\r\n```js\nnever closed\r<!-- nor this\n\n</details>\0 \ud800 \u2028'
    const text = markdown(
      conversationOf(
        'c',
        [
          { role: 'user', content: odd },
          { role: 'assistant', ...answerOf(odd) },
        ],
        {
          title: 'A <b> `code`\n# [x](y) *z* #',
        },
      ),
    )
    expect(text).toMatch(/^# A \\<b> \\`code\\` # \\\[x\\\]\(y\) \\\*z\\\* \\#\n/)
    for (const line of text.split('\n')) {
      expect(line).not.toMatch(/^(```|<|# No|never|nor|\s)/)
    }
    expect(text.isWellFormed()).toBe(true)
    expect(text).not.toMatch(/[\0\r]/)
  })

  test('of any document is a text', () => {
    const odd = [
      {},
      { messages: null },
      { id: 7, title: null, messages: [null, 'text', 7, [], {}] },
      conversationOf('c', [
        { role: 'assistant' },
        { role: { odd: true }, content: { parts: ['x'] } },
        { role: 'assistant', stage1: {}, stage2: [null, 7], stage3: 'x', metadata: [] } as never,
        {
          role: 'assistant',
          stage1: [{}],
          stage3: { model: null, response: 7 },
          metadata: { label_to_model: 'x' },
        } as never,
      ]),
    ]
    for (const one of odd) {
      expect(markdown(one)).toMatch(/^# /)
      const { title, messages } = one as Conversation
      const placed = Array.isArray(messages) ? messages.entries() : []
      expect(createMatcher('none of them')(title, placed)).toEqual([])
    }
  })
})

describe('the text around a match', () => {
  const snippet = (text: string, q: string) =>
    createMatcher(q)('Trip', [[0, { role: 'user', content: text }]])[0]?.snippet

  test('is one line, cut between characters', () => {
    expect(snippet('a\n\tb  needle\0c', 'needle')).toBe('a b needle c')
    const faces = '😀'.repeat(200)
    for (const before of ['', 'x']) {
      const found = snippet(`${before}${faces}needle${faces}`, 'NEEDLE') as string
      expect(found).toMatch(/^…😀{19,20}needle😀{49,50}…$/u)
    }
    expect(snippet('half \ud800 needle', 'needle')).toBe('half \ufffd needle')
  })

  test('is of the text as it is, whatever its length in lower case', () => {
    expect(snippet('İİİİ needle', 'NEEDLE')).toBe('İİİİ needle')
    expect(snippet('STRASSE', 'strasse')).toBe('STRASSE')
    expect(snippet('ΣΊΣΥΦΟΣ', 'σίσυφος')).toBe('ΣΊΣΥΦΟΣ')
    expect(snippet('a.b', 'a.b')).toBe('a.b')
    expect(snippet('axb', 'a.b')).toBeUndefined()
    expect(snippet('[x-y]/(z)|{1}^$', '[X-Y]/(Z)|{1}^$')).toBe('[x-y]/(z)|{1}^$')
  })
})
