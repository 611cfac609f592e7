import { type AIMessage, HumanMessage, ToolMessage } from '@langchain/core/messages'
import { tool } from '@langchain/core/tools'
import {
  Annotation,
  Command,
  END,
  interrupt,
  MessagesAnnotation,
  START,
  StateGraph,
} from '@langchain/langgraph'
import { ToolNode } from '@langchain/langgraph/prebuilt'
import { ChatOpenAI } from '@langchain/openai'
import { type Script, textOf } from '../openai-server.ts'
import type { Build, Graph } from './compare.ts'

const State = Annotation.Root({
  ...MessagesAnnotation.spec,
  notes: Annotation<string[]>({ reducer: (left, right) => [...left, ...right], default: () => [] }),
  approved: Annotation<number>(),
})

/** A person's message, with an id so that it is the same in every graph that gets it. */
export const says = (content: string, id = content) => ({ messages: [new HumanMessage({ content, id })] })

type ToolConfig = { toolCall?: { id?: string } }
// with ids of their own: the graph would give them random ones
const resultOf = (name: string, content: string, { toolCall }: ToolConfig, artifact?: unknown) =>
  new ToolMessage({ content, name, artifact, tool_call_id: toolCall?.id ?? '', id: `result-${toolCall?.id}` })

const textArgument = (name: string) => ({
  type: 'object' as const,
  properties: { [name]: { type: 'string' as const } },
  required: [name],
})
const lookUp = tool(
  ({ city }: { city: string }, config: ToolConfig) =>
    resultOf('look_up', `${city}: ${city.length} degrees`, config, { city, map: new Map([['at', city]]) }),
  { name: 'look_up', description: 'The weather of a city', schema: { ...textArgument('city') } },
)
const book = tool(
  ({ city }: { city: string }, config: ToolConfig) =>
    resultOf('book', `A room in ${city} is booked.`, config),
  { name: 'book', description: 'Books a room', schema: { ...textArgument('city') } },
)
const fail = tool(
  () => {
    throw new Error('no such place')
  },
  { name: 'fail', description: 'Always fails', schema: { ...textArgument('city') } },
)

/**
 * The model of the agent: looks up every city that the last person named, books the one that they asked to book, and
 * says what came of it.
 */
export const agentScript: Script = ({ messages }) => {
  const asked = messages.findLast(({ role }) => role === 'user')
  const results = messages.slice(messages.findLastIndex(({ role }) => role === 'user') + 1)
  const done = results.filter(({ role }) => role === 'tool').map(textOf)
  const [verb, ...cities] = textOf(asked ?? { role: 'user' }).split(' ')
  if (verb === 'break') return { status: 400, error: 'broken on purpose' }
  if (done.length > 0 || (verb !== 'look' && verb !== 'book')) {
    return { text: `${messages.length} messages so far. ${done.join(' ')}`.trim() }
  }
  const name = verb === 'look' ? 'look_up' : 'book'
  return {
    text: 'One moment.',
    calls: cities.map((city) => ({ name: city === 'Nowhere' ? 'fail' : name, args: { city } })),
  }
}

/** A loop of a model and its tools, in which a person approves of every booking, or says what to do instead. */
export function buildAgent(url: string): Build {
  return (checkpointer): Graph => {
    const model = new ChatOpenAI({
      model: 'stand-in',
      apiKey: 'none',
      maxRetries: 0,
      configuration: { baseURL: url },
    }).bindTools([lookUp, book, fail])
    const answer = async ({ messages }: typeof State.State) => {
      const message = await model.invoke(messages)
      return { messages: [message], notes: [`turn of ${messages.length}`] }
    }
    const review = ({ messages, approved = 0 }: typeof State.State) => {
      const calls = (messages.at(-1) as AIMessage).tool_calls ?? []
      const bookings = calls.filter(({ name }) => name === 'book')
      if (bookings.length === 0) return new Command({ goto: 'tools' })
      const decision = interrupt<object, string>({
        approve: bookings.map(({ args }) => args),
        after: approved,
      })
      if (decision === 'yes') return new Command({ goto: 'tools', update: { approved: approved + 1 } })
      const refusals = calls.map(
        ({ id = '', name }) =>
          new ToolMessage({ content: decision, name, tool_call_id: id, id: `refused-${id}` }),
      )
      return new Command({ goto: 'answer', update: { messages: refusals, notes: [`refused: ${decision}`] } })
    }
    const next = ({ messages }: typeof State.State) =>
      ((messages.at(-1) as AIMessage).tool_calls ?? []).length > 0 ? 'review' : END
    return new StateGraph(State)
      .addNode('answer', answer)
      .addNode('review', review, { ends: ['tools', 'answer'] })
      .addNode('tools', new ToolNode([lookUp, book, fail]))
      .addEdge(START, 'answer')
      .addConditionalEdges('answer', next, ['review', END])
      .addEdge('tools', 'answer')
      .compile({ checkpointer }) as Graph
  }
}
