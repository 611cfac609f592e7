import { describe, expect, test } from 'vitest'
import { parseJson } from '../core/json.ts'
import { fromOpenai } from './from-openai.ts'
import { createContentIds, threadIdOf } from './ids.ts'

const noId = () => '00000000-0000-4000-8000-000000000000'
const read = (value: unknown) => fromOpenai(value, 1, noId)
const one = (message: unknown) => read({ messages: [message] }).messages[0]

describe('a line in the OpenAI shape', () => {
  test('keeps its fields, and those of its messages, where they come back from', () => {
    const calls = [{ id: 'c', type: 'function', function: { name: 'f', arguments: '{}' } }]
    const { messages, ...rest } = read({
      id: 'x',
      title: 'T',
      tools: [],
      messages: [
        { role: 'developer', content: 'be brief' },
        { role: 'assistant', content: null, tool_calls: calls, refusal: null },
        { role: 'function', name: 'f', content: [1] },
        { role: 'assistant', tool_calls: [] },
      ],
    })
    expect(rest).toMatchObject({
      threadId: threadIdOf('x'),
      title: 'T',
      line: { id: 'x', title: 'T', tools: [] },
    })
    expect(messages).toEqual([
      {
        messageId: 'import:0',
        parentId: null,
        role: 'system',
        content: 'be brief',
        meta: { openai: { role: 'developer' } },
      },
      {
        messageId: 'import:1',
        parentId: 'import:0',
        role: 'assistant',
        content: null,
        toolName: 'f',
        toolInput: calls,
        meta: { openai: { refusal: null } },
      },
      {
        messageId: 'import:2',
        parentId: 'import:1',
        role: 'tool',
        content: [1],
        meta: { openai: { name: 'f', role: 'function' } },
      },
      {
        messageId: 'import:3',
        parentId: 'import:2',
        role: 'assistant',
        content: null,
        meta: { openai: { tool_calls: [] }, import: { omitted: ['content'] } },
      },
    ])
  })

  test('titles are cut by characters, and stored without what a text column refuses', () => {
    expect([...(read({ title: '😀'.repeat(600), messages: [] }).title ?? '')]).toHaveLength(500)
    expect(read({ title: 'a\0b\ud800', messages: [] }).title).toBe('a\ufffdb\ufffd')
    expect(read({ title: 7, messages: [] }).title).toBe(null)
  })

  test('a tool call without a name, or with an odd one, is stored all the same', () => {
    expect(one({ role: 'assistant', tool_calls: [null] })).toMatchObject({
      toolName: null,
      toolInput: [null],
    })
    const name = `\0${'n'.repeat(400)}`
    expect(one({ role: 'assistant', tool_calls: [{ function: { name } }] })?.toolName).toHaveLength(255)
  })

  test.each([
    [[], 'the line is not a JSON object'],
    ['x', 'the line is not a JSON object'],
    [{}, 'no array `messages`'],
    [{ messages: {} }, 'no array `messages`'],
    [{ mapping: {} }, 'ChatGPT'],
    [{ messages: [{ role: 'user', content: '' }, 5] }, 'message 1 is not a JSON object'],
    [{ messages: [{ content: '' }] }, 'message 0 has the role none'],
    [{ messages: [{ role: 'bot' }] }, 'message 0 has the role "bot"'],
    [{ id: [], messages: [] }, 'its id is neither a text nor a number'],
    [{ id: true, messages: [] }, 'its id is neither a text nor a number'],
  ])('%j is refused', (value, reason) => {
    expect(() => read(value)).toThrow(
      expect.objectContaining({ code: 'invalid_input', message: expect.stringContaining(reason) }),
    )
  })
})

describe('ids', () => {
  test('a UUID is the thread itself; any other id names one, a number and its text different ones', () => {
    expect(threadIdOf('0192F0C1-2F6B-7CC0-8D2E-5F0A6D2F4B11')).toBe('0192f0c1-2f6b-7cc0-8d2e-5f0a6d2f4b11')
    const big = parseJson('12345678901234567890') as object
    expect(
      new Set([threadIdOf('1'), threadIdOf(1), threadIdOf(big), threadIdOf('12345678901234567890')]).size,
    ).toBe(4)
  })

  test('never change, for conversations that are there would come in again', () => {
    expect(threadIdOf('1_00000')).toBe('89af491d-bd58-5e2d-8f47-d48ea7c18189')
    expect(createContentIds()({ messages: [] })).toBe('4a10e3bc-e3c4-596d-850d-51b79243bbb1')
  })

  test('without an id the content names the thread, and equal ones in a file are counted', () => {
    const first = createContentIds()
    const second = createContentIds()
    const ids = [{ a: 1, b: 2 }, { b: 2, a: 1 }, { a: 2 }].map(first)
    expect(new Set(ids).size).toBe(3)
    expect([{ b: 2, a: 1 }, { a: 2 }, { a: 1, b: 2 }].map(second)).toEqual([ids[0], ids[2], ids[1]])
  })

  test('an id that is null or empty is none', () => {
    for (const id of [null, '']) expect(read({ id, messages: [] }).threadId).toBe(noId())
  })
})
