import { describe, expect, test } from 'vitest'
import { readSample, SAMPLE_CHATGPT } from '../../test/transfer.ts'
import { fromChatgpt } from './from-chatgpt.ts'

const noId = () => '00000000-0000-4000-8000-000000000000'
const sample = JSON.parse(readSample(SAMPLE_CHATGPT)) as Record<string, unknown>[]

type Given = { parent?: string; at?: number; role?: string; content?: unknown; none?: boolean }
const tree = (nodes: Record<string, Given>) => ({
  mapping: Object.fromEntries(
    Object.entries(nodes).map(([id, { parent, at, role = 'user', content, none }]) => [
      id,
      {
        id,
        parent: parent ?? null,
        message:
          none === true
            ? null
            : { id, author: { role }, create_time: at ?? null, content: content ?? text(id) },
      },
    ]),
  ),
})
const text = (...parts: string[]) => ({ content_type: 'text', parts })
const read = (value: unknown) => fromChatgpt(value, 1, noId)
const shape = (value: unknown) => read(value).messages.map(({ messageId, parentId }) => [messageId, parentId])

describe('a conversation of ChatGPT', () => {
  test('is a tree in the order of time, nodes without a message left out', () => {
    const { messages, threadId, title, createdAt, updatedAt, line } = read(sample[0])
    expect(threadId).toBe('6a1d3d0f-4b7e-4c39-9a55-0d4f1a7e9b10')
    expect([title, createdAt?.toISOString(), updatedAt?.toISOString()]).toEqual([
      'Naming a boat',
      '2023-11-14T22:13:20.123Z',
      '2023-11-14T22:20:00.123Z',
    ])
    expect(line).toMatchObject({ current_node: 'a3b', is_archived: false })
    expect(line).not.toHaveProperty('mapping')
    expect(messages.map(({ messageId, parentId, content }) => [messageId, parentId, content])).toEqual([
      ['import:sys', null, ''],
      ['import:u1', 'import:sys', 'Name my boat.'],
      ['import:a1', 'import:u1', 'First answer: Petrel'],
      ['import:a2', 'import:u1', 'Second answer: Halcyon'],
      ['import:u2', 'import:a2', 'Why that?'],
      ['import:a3', 'import:u2', 'It means calm.'],
      ['import:u2b', 'import:a2', 'Something shorter?'],
      ['import:a3b', 'import:u2b', 'Ink.'],
    ])
    // no time of its own: that of the conversation
    expect(messages[0]?.createdAt).toEqual(createdAt)
    expect(messages[3]?.meta).toMatchObject({
      chatgpt: { id: 'a2', author: { role: 'assistant' }, metadata: { model_slug: 'gpt-4' }, weight: 1 },
    })
    expect(messages[3]?.meta?.chatgpt).not.toHaveProperty('content')
  })

  test('keeps content that is not plain text as it is, and parts that were joined in meta', () => {
    const { messages } = read(sample[1])
    expect(messages.map(({ role, toolName, content }) => [role, toolName, content])).toEqual([
      ['user', undefined, 'Add 1, 2 and 3 with code.'],
      ['assistant', undefined, { content_type: 'code', language: 'unknown', text: 'sum([1,2,3])' }],
      ['tool', 'python', { content_type: 'execution_output', text: '6' }],
      ['assistant', undefined, 'It is\n6.'],
      ['user', undefined, expect.objectContaining({ content_type: 'multimodal_text' })],
    ])
    expect(messages[3]?.meta?.chatgpt).toMatchObject({ content: text('It is', '6.') })
  })

  test('a child comes behind its parent whatever the times say', () => {
    const nodes = {
      c: { parent: 'b', at: 1 },
      b: { parent: 'a', at: 2 },
      a: { at: 3 },
      d: { parent: 'a', at: 2.5 },
    }
    expect(shape(tree(nodes))).toEqual([
      ['import:a', null],
      ['import:b', 'import:a'],
      ['import:d', 'import:a'],
      ['import:c', 'import:b'],
    ])
  })

  test('without any time the messages get none', () => {
    const { messages } = read(tree({ a: {}, b: { parent: 'a' } }))
    expect(messages.map((message) => 'createdAt' in message)).toEqual([false, false])
  })

  test('a parent that is not there makes a root; several roots are fine', () => {
    expect(
      shape(
        tree({
          a: { parent: 'gone', at: 1 },
          b: { at: 2 },
          x: { none: true, parent: 'b' },
          c: { parent: 'x', at: 3 },
        }),
      ),
    ).toEqual([
      ['import:a', null],
      ['import:b', null],
      ['import:c', 'import:b'],
    ])
  })

  test('a thread of 200,000 messages does not overflow the stack', () => {
    const nodes = Object.fromEntries(
      Array.from({ length: 200_000 }, (_, i) => [`n${i}`, i === 0 ? {} : { parent: `n${i - 1}` }]).reverse(),
    )
    const { messages } = read(tree(nodes))
    expect(messages.length).toBe(200_000)
    expect(messages.at(-1)).toMatchObject({ messageId: 'import:n199999', parentId: 'import:n199998' })
  })

  test.each([
    ['a cycle', tree({ a: { parent: 'b' }, b: { parent: 'a' } }), 'its own ancestor'],
    ['another role', tree({ a: { role: 'critic' } }), 'node a has the role "critic"'],
    ['no mapping', { title: 'x', messages: [] }, 'has no `mapping`'],
    ['a mapping that is an array', { mapping: [] }, '`mapping` is not a JSON object'],
    ['a node that is null', { mapping: { a: null } }, 'node a is not a JSON object'],
    ['an id that is an object', { conversation_id: {}, mapping: {} }, 'neither a text nor a number'],
    ['a text', 'conversation', 'is not a JSON object'],
  ])('%s is refused', (_, value, reason) => {
    expect(() => read(value)).toThrow(
      expect.objectContaining({ code: 'invalid_input', message: expect.stringContaining(reason) }),
    )
  })

  test('node ids that no message id can hold are replaced by their digest', () => {
    const ids = shape(tree({ 'a\0': { at: 1 }, [`b${'x'.repeat(300)}`]: { at: 2, parent: 'a\0' } }))
    expect(ids).toEqual([
      [expect.stringMatching(/^import:sha256:[0-9a-f]{64}$/), null],
      [expect.stringMatching(/^import:sha256:/), ids[0]?.[0]],
    ])
  })
})
