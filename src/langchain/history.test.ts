import { randomUUID } from 'node:crypto'
import {
  AIMessage,
  AIMessageChunk,
  type BaseMessage,
  ChatMessage,
  FunctionMessage,
  HumanMessage,
  RemoveMessage,
  SystemMessage,
  ToolMessage,
} from '@langchain/core/messages'
import { StringOutputParser } from '@langchain/core/output_parsers'
import { ChatPromptTemplate, MessagesPlaceholder } from '@langchain/core/prompts'
import { RunnableWithMessageHistory } from '@langchain/core/runnables'
import { ChatOpenAI } from '@langchain/openai'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { engines, type TestDatabase } from '../../test/harness.ts'
import { type OpenAiServer, startOpenAiServer, textOf } from '../../test/openai-server.ts'
import { ThreadbaseChatMessageHistory } from '../langchain.ts'

const CALLS = [
  { id: 'c1', name: 'weather', args: { city: 'Tromsø', days: [1, 2.5] }, type: 'tool_call' as const },
  { id: 'c2', name: 'time', args: {}, type: 'tool_call' as const },
]
const USAGE = { input_tokens: 7, output_tokens: 5, total_tokens: 12, input_token_details: { cache_read: 3 } }

const MESSAGES: Record<string, BaseMessage> = {
  system: new SystemMessage('Be kind.'),
  question: new HumanMessage({ content: 'What is the weather?', id: 'h1', name: 'anna' }),
  'question of blocks': new HumanMessage({
    content: [
      { type: 'text', text: 'And this? \u0000 \u{1f30a}' },
      { type: 'image_url', image_url: { url: 'data:image/png;base64,AAAA' } },
    ],
    additional_kwargs: { seen: false, deep: { of: [null, 1, 'x'] } },
  }),
  'answer with calls': new AIMessage({
    content: '',
    id: 'run-1',
    tool_calls: CALLS,
    invalid_tool_calls: [
      { id: 'c3', name: 'bad', args: '{"a":', error: 'no JSON', type: 'invalid_tool_call' },
    ],
    additional_kwargs: {
      tool_calls: [{ id: 'c1', type: 'function', function: { name: 'weather', arguments: '{}' } }],
    },
    response_metadata: { model_name: 'stand-in', finish_reason: 'tool_calls' },
    usage_metadata: USAGE,
  }),
  'answer of a tool': new ToolMessage({
    content: 'snow',
    tool_call_id: 'c1',
    name: 'weather',
    id: 't1',
    status: 'success',
    artifact: { raw: [1, 2], text: 'x' },
  }),
  'failed tool': new ToolMessage({
    content: [{ type: 'text', text: 'no' }],
    tool_call_id: 'c2',
    status: 'error',
  }),
  answer: new AIMessage({ content: [{ type: 'text', text: 'It snows.' }], id: 'run-2' }),
  'answer without anything': new AIMessage(''),
  function: new FunctionMessage({ name: 'old', content: 'x' }),
  'another role': new ChatMessage({ content: 'do', role: 'developer' }),
  'a long id': new HumanMessage({ content: 'x', id: 'i'.repeat(300) }),
}

/** What a message says of itself. */
const sayingOf = (message: BaseMessage) => {
  const { lc_kwargs: _, ...own } = { ...message } as Record<string, unknown>
  return { ...own, kind: message.constructor.name, dict: message.toDict() }
}

for (const engine of engines) {
  describe.skipIf(!engine.available)(`histories on ${engine.name}`, () => {
    let opened: TestDatabase
    beforeAll(async () => {
      opened = await engine.open()
    })
    afterAll(() => opened?.close())
    let users = 0
    let userId: string
    beforeEach(() => {
      userId = `history-${++users}`
    })
    const open = (sessionId: string, user = userId) =>
      new ThreadbaseChatMessageHistory({ threadbase: opened.tb, userId: user, sessionId })

    test.each(Object.entries(MESSAGES))('%s comes back as it was', async (name, message) => {
      const history = open(name)
      await history.addMessage(message)
      const [back] = await open(name).getMessages()
      expect(back).toBeInstanceOf(message.constructor)
      expect(sayingOf(back as BaseMessage)).toEqual(sayingOf(message))
    })

    test('all of them, in order, and none for a session that nobody began', async () => {
      const history = open('all')
      expect(await history.getMessages()).toEqual([])
      expect((await opened.tb.threads.list({ userId })).items).toEqual([])
      await history.addMessages(Object.values(MESSAGES))
      expect((await history.getMessages()).map(sayingOf)).toEqual(Object.values(MESSAGES).map(sayingOf))
    })

    test('what others see: roles, text, tools, usage', async () => {
      const history = open('seen')
      await history.addMessages(Object.values(MESSAGES))
      const { items } = await opened.tb.messages.list({ userId }, history.threadId)
      expect(items.map(({ role }) => role)).toEqual(
        'system user user assistant tool tool assistant assistant tool system user'.split(' '),
      )
      expect(items[3]).toMatchObject({ messageId: 'run-1', toolName: 'weather', toolInput: CALLS })
      expect(items[6]).toMatchObject({ text: 'It snows.' })
      expect(await opened.tb.usage.totals({ userId })).toMatchObject([
        { inputTokens: 7, outputTokens: 5, model: 'stand-in' },
      ])
    })

    test('a message with an id is stored once; the same id with another content is a conflict', async () => {
      const history = open('once')
      const message = new HumanMessage({ content: 'one', id: 'm1' })
      await Promise.all([history.addMessage(message), open('once').addMessages([message, message])])
      expect(await history.getMessages()).toHaveLength(1)
      const other = new HumanMessage({ content: 'two', id: 'm1' })
      await expect(history.addMessage(other)).rejects.toMatchObject({ code: 'conflict' })
    })

    test('chunks of a stream come back as the whole message', async () => {
      const chunk = new AIMessageChunk({
        content: 'Hm',
        id: 'run-3',
        tool_call_chunks: [
          { id: 'c1', name: 'weather', args: '{"city":"Oslo"}', index: 0, type: 'tool_call_chunk' },
        ],
      })
      await open('chunks').addMessage(chunk)
      const [back] = (await open('chunks').getMessages()) as AIMessage[]
      expect(back).toBeInstanceOf(AIMessage)
      expect(back).toMatchObject({
        content: 'Hm',
        id: 'run-3',
        tool_calls: [{ name: 'weather', args: { city: 'Oslo' } }],
      })
    })

    test('2,300 messages are more than a page and more than an append', async () => {
      const history = open('many')
      await history.addMessages(Array.from({ length: 2_300 }, (_, i) => new HumanMessage(`message ${i}`)))
      const messages = await history.getMessages()
      expect(messages.map(({ content }) => content)).toEqual(
        Array.from({ length: 2_300 }, (_, i) => `message ${i}`),
      )
    })

    test('clear removes the messages and nothing else', async () => {
      const history = open('cleared')
      await history.addUserMessage('Hello')
      await history.addAIMessage('Hi')
      await opened.tb.threads.update({ userId }, history.threadId, { title: 'kept' })
      await history.clear()
      await history.clear()
      expect(await history.getMessages()).toEqual([])
      await history.addUserMessage('Again')
      expect(await history.getMessages()).toHaveLength(1)
      expect(await opened.tb.threads.getThread({ userId }, history.threadId)).toMatchObject({
        title: 'kept',
        lastSeq: 3,
        meta: { langchain: { session_id: 'cleared' } },
      })
    })

    test('a UUID is the thread itself, whoever made it; its branches show the last', async () => {
      const { id } = await opened.tb.threads.create({ userId }, { title: 'mine' })
      const history = open(id.toUpperCase())
      await history.addMessages([
        new HumanMessage({ content: 'q', id: 'q' }),
        new AIMessage({ content: 'first', id: 'a1' }),
      ])
      await opened.tb.messages.append({ userId }, id, [
        { role: 'assistant', content: 'second', parentId: 'q' },
      ])
      expect((await history.getMessages()).map(({ content }) => content)).toEqual(['q', 'second'])
    })

    test('what others stored is read as LangChain has it', async () => {
      const scope = { userId }
      const { id } = await opened.tb.threads.create(scope)
      const call = { id: 'c', type: 'function', function: { name: 'f', arguments: '{"a":1}' } }
      const broken = { ...call, function: { name: 'g', arguments: '{' } }
      await opened.tb.messages.append(scope, id, [
        { role: 'system', content: 'S', messageId: 's' },
        { role: 'user', content: { any: 'thing' } },
        { role: 'assistant', content: null, toolName: 'f', toolInput: [call, broken, 5] },
        { role: 'tool', content: 'r', meta: { openai: { tool_call_id: 'c' } } },
        { role: 'tool', content: null, toolName: 'f', toolOutput: { n: 1 } },
      ])
      const [system, user, assistant, tool, output] = await open(id).getMessages()
      expect(system).toMatchObject({ type: 'system', content: 'S', id: 's' })
      expect(user).toMatchObject({ type: 'human', content: '' })
      expect(assistant).toMatchObject({
        type: 'ai',
        content: '',
        tool_calls: [{ id: 'c', name: 'f', args: { a: 1 } }],
        invalid_tool_calls: [{ name: 'g', args: '{' }],
      })
      expect(tool).toMatchObject({ type: 'tool', content: 'r', tool_call_id: 'c' })
      expect(output).toMatchObject({ type: 'tool', content: '{"n":1}', name: 'f' })
    })

    test('another user has another history under the same session', async () => {
      await open('shared').addUserMessage('secret of A')
      const other = open('shared', `${userId}-b`)
      expect(await other.getMessages()).toEqual([])
      await other.clear()
      await other.addUserMessage('of B')
      expect((await open('shared').getMessages()).map(({ content }) => content)).toEqual(['secret of A'])
      const id = randomUUID()
      await open(id).addUserMessage('secret of A')
      expect(await open(id, `${userId}-b`).getMessages()).toEqual([])
    })

    test('what cannot be is refused', async () => {
      expect(() => open('')).toThrow('sessionId')
      expect(() => open('x', '')).toThrow(/user/i)
      const removal = new RemoveMessage({ id: 'x' })
      await expect(open('x').addMessage(removal)).rejects.toMatchObject({ code: 'invalid_input' })
    })

    describe('in a chain', () => {
      let server: OpenAiServer
      beforeAll(async () => {
        server = await startOpenAiServer(({ messages }) => ({
          text: `You said: ${messages
            .filter(({ role }) => role === 'user')
            .map(textOf)
            .join(', ')}`,
        }))
      })
      afterAll(() => server?.close())

      test('RunnableWithMessageHistory remembers each session, whole and streamed', async () => {
        const prompt = ChatPromptTemplate.fromMessages([
          ['system', 'Repeat.'],
          new MessagesPlaceholder('history'),
          ['human', '{question}'],
        ])
        const model = new ChatOpenAI({
          ...{ model: 'stand-in', apiKey: 'none', maxRetries: 0 },
          configuration: { baseURL: server.url },
        })
        const chain = new RunnableWithMessageHistory({
          runnable: prompt.pipe(model),
          getMessageHistory: (sessionId: string) => open(sessionId),
          inputMessagesKey: 'question',
          historyMessagesKey: 'history',
        }).pipe(new StringOutputParser())
        const ask = (question: string, sessionId: string) =>
          chain.invoke({ question }, { configurable: { sessionId } })
        expect(await ask('one', 's1')).toBe('You said: one')
        expect(await ask('two', 's1')).toBe('You said: one, two')
        expect(await ask('three', 's2')).toBe('You said: three')
        let streamed = ''
        for await (const piece of await chain.stream(
          { question: 'four' },
          { configurable: { sessionId: 's1' } },
        ))
          streamed += piece
        expect(streamed).toBe('You said: one, two, four')
        const messages = await open('s1').getMessages()
        expect(messages.map(({ type }) => type).join(' ')).toBe('human ai human ai human ai')
        expect(messages[1]).toMatchObject({ usage_metadata: { output_tokens: 3 } })
      })
    })
  })
}
