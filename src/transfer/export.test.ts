import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { engines, type TestDatabase } from '../../test/harness.ts'
import { exportAll, importText, readSample, SAMPLE_LINES, toLines } from '../../test/transfer.ts'
import type { NewMessage } from '../messages/schema.ts'
import type { Threadbase } from '../threadbase.ts'
import { threadIdOf } from './ids.ts'

let users = 0
const newUser = () => `exporter ${++users}`

for (const engine of engines) {
  describe.skipIf(!engine.available)(`export on ${engine.name}`, () => {
    let store: TestDatabase
    let tb: Threadbase
    beforeAll(async () => {
      store = await engine.open()
      tb = store.tb
    })
    afterAll(() => store?.close())

    const thread = async (messages: NewMessage[], title?: string) => {
      const scope = { userId: newUser() }
      const { id } = await tb.threads.create(scope, { title })
      if (messages.length > 0) await tb.messages.append(scope, id, messages)
      return {
        scope,
        id,
        lines: async () =>
          (await exportAll(tb, scope.userId))
            .split('\n')
            .filter(Boolean)
            .map((line) => JSON.parse(line)),
      }
    }

    test('tool calls and their results take the shape that OpenAI has for them', async () => {
      const calls = [{ id: 'own', type: 'function', function: { name: 'f', arguments: '{}' } }]
      const { id, lines } = await thread([
        { role: 'assistant', content: null, toolName: 'search', toolInput: { q: 'x' } },
        { role: 'assistant', content: 'both', toolName: 'add', toolInput: [1, 2] },
        { role: 'tool', content: null, toolName: 'search', toolOutput: { hits: 3 } },
        { role: 'tool', content: null, toolName: 'add', toolOutput: 'three' },
        { role: 'assistant', content: null, toolInput: calls, meta: { openai: { refusal: null } } },
        { role: 'tool', content: 'text', toolOutput: { ignored: true } },
        { role: 'assistant', content: null, toolName: 'g', meta: { openai: { tool_call_id: 'given' } } },
        { role: 'tool', content: 'x', meta: { openai: { tool_call_id: 'other' } } },
        { role: 'tool', content: 'y', toolName: 'never called' },
        {
          role: 'user',
          content: [{ type: 'text', text: 'blocks' }],
          meta: { openai: { name: 'ada' }, private: 1 },
        },
      ])
      const call = (callId: string, name: string, args: string) => [
        { id: callId, type: 'function', function: { name, arguments: args } },
      ]
      expect(await lines()).toEqual([
        {
          id,
          messages: [
            { role: 'assistant', content: null, tool_calls: call('call_1', 'search', '{"q":"x"}') },
            { role: 'assistant', content: 'both', tool_calls: call('call_2', 'add', '[1,2]') },
            { role: 'tool', content: '{"hits":3}', tool_call_id: 'call_1' },
            { role: 'tool', content: 'three', tool_call_id: 'call_2' },
            { role: 'assistant', content: null, tool_calls: calls, refusal: null },
            { role: 'tool', content: 'text', tool_call_id: 'own' },
            { role: 'assistant', content: null, tool_calls: call('given', 'g', '{}') },
            { role: 'tool', content: 'x', tool_call_id: 'other' },
            { role: 'tool', content: 'y' },
            { role: 'user', content: [{ type: 'text', text: 'blocks' }], name: 'ada' },
          ],
        },
      ])
    })

    test('a thread with branches gives the path to its newest message, across pages', async () => {
      const user = (messageId: string, parentId?: string | null): NewMessage => ({
        messageId,
        parentId,
        role: 'user',
        content: messageId,
      })
      const many = Array.from({ length: 450 }, (_, i) => user(`m${i}`))
      const { scope, id, lines } = await thread(many)
      await tb.messages.append(scope, id, [
        user('x1', 'm299'),
        user('x2'),
        user('y1', 'm440'),
        user('x3', 'x2'),
      ])
      const [line] = await lines()
      expect(line.messages.map(({ content }: { content: string }) => content)).toEqual([
        ...many.slice(0, 300).map(({ messageId }) => messageId),
        'x1',
        'x2',
        'x3',
      ])
      await tb.messages.append(scope, id, [user('fresh', null)])
      expect((await lines())[0].messages).toHaveLength(1)
    })

    test('threads come oldest first, archived ones too; one alone by its id', async () => {
      const { scope, id } = await thread([{ role: 'user', content: 'a' }], 'first')
      const second = await tb.threads.create(scope, { title: 'second' })
      await tb.threads.archive(scope, id)
      const text = await exportAll(tb, scope.userId)
      expect(text.split('\n').map((line) => line && JSON.parse(line).title)).toEqual(['first', 'second', ''])
      expect(await exportAll(tb, scope.userId, { threadId: second.id })).toBe(
        `${JSON.stringify({ id: second.id, title: 'second', messages: [] })}\n`,
      )
      await expect(exportAll(tb, newUser(), { threadId: id })).rejects.toMatchObject({ code: 'not_found' })
      await expect(exportAll(tb, scope.userId, { threadId: 'x' })).rejects.toMatchObject({
        code: 'invalid_input',
      })
      expect(() => tb.transfer.export(scope, { format: 'xml' as never })).toThrow(/format must be one of/)
      expect(await exportAll(tb, newUser())).toBe('')
    })

    test('a thread larger than a page of threads and of messages keeps every message, in pieces', async () => {
      const scope = { userId: newUser() }
      const lines = Array.from({ length: 130 }, (_, i) => ({
        id: `t${i}`,
        messages: Array.from({ length: i === 77 ? 5_000 : 1 }, (_, k) => ({
          role: 'user',
          content: `${i} ${k} ${'x'.repeat(100)}`,
        })),
      }))
      await importText(tb, scope.userId, toLines(...lines))
      const sizes: number[] = []
      let text = ''
      for await (const piece of tb.transfer.export(scope)) {
        sizes.push(piece.length)
        text += piece
      }
      expect(
        text
          .split('\n')
          .filter(Boolean)
          .map((line) => JSON.parse(line)),
      ).toEqual(lines)
      expect(Math.max(...sizes)).toBeLessThan(70_000)
      expect(sizes.length).toBeGreaterThan(8)
    })

    test('Markdown has a heading for the thread and each message, and fences that hold', async () => {
      const scope = { userId: newUser() }
      await importText(tb, scope.userId, readSample(SAMPLE_LINES))
      const id = threadIdOf('code')
      const { createdAt } = await tb.threads.getThread(scope, id)
      expect(await exportAll(tb, scope.userId, { threadId: id, format: 'markdown' })).toBe(
        [
          '# Fences ``` and lines',
          `*${createdAt.toISOString()}, thread ${id}*`,
          '## User',
          'Show a fence',
          '## Assistant',
          '````\n```js\n1 + 1\n```\n````',
          '## Assistant (run)',
          `\`\`\`json\n${JSON.stringify(
            [
              { id: 'c9', type: 'function', function: { name: 'run', arguments: 'not json' } },
              { type: 'custom', custom: { name: 'odd' } },
            ],
            null,
            2,
          )}\n\`\`\``,
          '## Tool',
          '```\n# not a heading\n```\n',
        ].join('\n\n'),
      )
      const all = await exportAll(tb, scope.userId, { format: 'markdown' })
      expect(all.match(/^# /gm)).toHaveLength(12 + 1)
      expect(all.match(/^---$/gm)).toHaveLength(11)
    })
  })
}
