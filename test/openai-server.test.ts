import {
  AIMessage,
  type AIMessageChunk,
  type BaseMessage,
  HumanMessage,
  ToolMessage,
} from '@langchain/core/messages'
import { ChatOpenAI } from '@langchain/openai'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { inTurn, type OpenAiServer, startOpenAiServer } from './openai-server.ts'

const SCRIPT = inTurn([
  {
    text: 'Let me look at both.',
    calls: [
      { name: 'weather', args: { city: 'Tromsø' } },
      { name: 'weather', args: { city: 'Zürich, by the lake \u{1f30a}' } },
    ],
  },
  { text: 'Snow in Tromsø, sun in Zürich. '.repeat(5) },
])

describe('the stand-in of a model, through the real client', () => {
  let server: OpenAiServer
  beforeAll(async () => {
    server = await startOpenAiServer(SCRIPT)
  })
  afterAll(() => server?.close())
  const newModel = () =>
    new ChatOpenAI({
      model: 'stand-in',
      apiKey: 'none',
      maxRetries: 0,
      configuration: { baseURL: server.url },
    })
  const streamWhole = async (messages: BaseMessage[]) => {
    const pieces: AIMessageChunk[] = []
    for await (const piece of await newModel().stream(messages)) pieces.push(piece)
    expect(pieces.length).toBeGreaterThan(3)
    return pieces.reduce((whole, piece) => whole.concat(piece))
  }

  test('one conversation gets one answer, whole or streamed', async () => {
    const question = [new HumanMessage('What is the weather?')]
    const first = await newModel().invoke(question)
    expect(first.id).toMatch(/^chatcmpl-[0-9a-f]{24}$/)
    expect(first.tool_calls?.map(({ args }) => args.city)).toEqual([
      'Tromsø',
      'Zürich, by the lake \u{1f30a}',
    ])
    expect(await newModel().invoke(question)).toEqual(first)
    const streamed = await streamWhole(question)
    const { id, content, tool_calls, usage_metadata } = first
    expect(streamed).toMatchObject({ id, content, tool_calls, usage_metadata: { ...usage_metadata } })
    const other = await newModel().invoke([new HumanMessage('And tomorrow?')])
    expect(other.id).not.toBe(first.id)
  })

  test('the next turn comes once every call has its result; a conversation that cannot be is refused', async () => {
    const question = new HumanMessage('What is the weather?')
    const calls = (await newModel().invoke([question])) as AIMessage
    const results = (calls.tool_calls ?? []).map(
      ({ id = '' }) => new ToolMessage({ content: 'fine', tool_call_id: id }),
    )
    const last = await streamWhole([question, calls, ...results])
    expect(last.content).toBe('Snow in Tromsø, sun in Zürich. '.repeat(5))
    for (const [history, problem] of [
      [[question, calls], 'results of call_'],
      [[question, calls, ...results.slice(1)], 'results of call_'],
      [[question, calls, question, ...results], 'comes before'],
      [[question, ...results], 'answers no call'],
      [[question, new AIMessage('a'), new AIMessage('b')], 'no turn 3'],
    ] as const) {
      await expect(newModel().invoke([...history])).rejects.toThrow(problem)
    }
    server.follow(() => ({ status: 503, error: 'overloaded' }))
    await expect(newModel().invoke([question])).rejects.toMatchObject({ status: 503 })
    server.follow(SCRIPT)
    expect(server.requests.at(-1)?.messages).toEqual([{ role: 'user', content: 'What is the weather?' }])
  })
})
