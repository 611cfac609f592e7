import {
  type AIMessage,
  type BaseMessage,
  HumanMessage,
  SystemMessage,
  ToolMessage,
} from '@langchain/core/messages'
import { END, MemorySaver, MessagesAnnotation, START, StateGraph } from '@langchain/langgraph'
import { ChatOpenAI } from '@langchain/openai'
import { sql } from 'kysely'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type Dialogue, dialoguesFile, readDialogues } from '../dialogues.ts'
import { engines, type TestDatabase } from '../harness.ts'
import {
  type ChatMessage,
  type OpenAiServer,
  type Script,
  startOpenAiServer,
  textOf,
} from '../openai-server.ts'
import { type Build, collect, createNames, type Graph } from './compare.ts'

type Talk = { messages: ChatMessage[] }
const COUNT = 30

const talks = pickTalks(readDialogues(dialoguesFile()))

/** As many as a test has time for, from all of the file; only those that a person, a model and its tools can have. */
function pickTalks(all: Dialogue[]): Talk[] {
  const possible = (all as Talk[]).filter(({ messages }) => isPossible(messages))
  const distance = Math.max(1, Math.floor(possible.length / COUNT))
  return possible.filter((_, i) => i % distance === 0).slice(0, COUNT)
}

function isPossible(messages: ChatMessage[]): boolean {
  const roles = messages.map(({ role, tool_calls }) => (tool_calls ? 'c' : role[0])).join('')
  const parsed = messages.every(({ tool_calls = [] }) =>
    tool_calls?.every(({ function: f }) => isJson(f?.arguments)),
  )
  return (
    /^(u(ct+)*a)+$/.test(roles) &&
    parsed &&
    messages.every(({ content }) => typeof content !== 'object' || content === null)
  )
}

function isJson(text = ''): boolean {
  try {
    return typeof JSON.parse(text) === 'object'
  } catch {
    return false
  }
}

/** A thread begins with the numbers of the talks that follow one another in it. */
const begin = (numbers: number[]) => new SystemMessage({ content: numbers.join(), id: 'talks' })
const linesOf = (first: string) => first.split(',').flatMap((n) => talks[Number(n)]?.messages ?? [])

/** Says what was said in the talk, provided that it is sent exactly what came before. */
const script: Script = ({ messages: [first, ...said] }) => {
  const lines = linesOf(textOf(first as ChatMessage))
  const wrong = said.findIndex(
    (message, i) => message.role !== lines[i]?.role || textOf(message) !== textOf(lines[i]),
  )
  if (wrong >= 0) return { status: 400, error: `message ${wrong} is not what was said` }
  const { content, tool_calls = [] } = lines[said.length] as ChatMessage
  const calls = (tool_calls ?? []).map(({ function: f }) => ({ name: f.name, args: JSON.parse(f.arguments) }))
  return { ...(content == null ? {} : { text: String(content) }), calls }
}

const buildTalk =
  (url: string): Build =>
  (checkpointer) => {
    const model = new ChatOpenAI({
      model: 'stand-in',
      apiKey: 'none',
      maxRetries: 0,
      configuration: { baseURL: url },
    })
    const callsOf = (messages: BaseMessage[]) => (messages.at(-1) as AIMessage).tool_calls ?? []
    return new StateGraph(MessagesAnnotation)
      .addNode('model', async ({ messages }) => ({ messages: [await model.invoke(messages)] }))
      .addNode('tools', ({ messages }) => {
        const lines = linesOf(messages[0]?.text ?? '').slice(messages.length - 1)
        const results = callsOf(messages).map(({ id = '', name }, i) => {
          return new ToolMessage({
            content: textOf(lines[i] as ChatMessage),
            name,
            tool_call_id: id,
            id: `of ${id}`,
          })
        })
        return { messages: results }
      })
      .addEdge(START, 'model')
      .addConditionalEdges('model', ({ messages }) => (callsOf(messages).length > 0 ? 'tools' : END))
      .addEdge('tools', 'model')
      .compile({ checkpointer }) as unknown as Graph
  }

const at = (thread: string) => ({ configurable: { thread_id: thread } })

/** Has a talk, or several, in a thread. */
async function talk(
  graph: Graph,
  thread: string,
  numbers: number[],
  afterTurn = async () => {},
): Promise<void> {
  let system: BaseMessage[] = [begin(numbers)]
  for (const [i, { role, content }] of linesOf(numbers.join()).entries()) {
    if (role !== 'user') continue
    const human = new HumanMessage({ content: String(content), id: `line ${i}` })
    await graph.invoke({ messages: [...system, human] }, at(thread))
    system = []
    await afterTurn()
  }
}

const readBack = async (graph: Graph, thread: string) => ({
  state: await graph.getState(at(thread)),
  steps: (await collect(graph.getStateHistory(at(thread)))).length,
})

type Stored = {
  elements: number
  bytes: number
  refs: number
  checkpoints: number
  records: number
  writes: number
}

async function measure({ database }: TestDatabase, user: string): Promise<Stored> {
  const [blobs, checkpoints, writes] = ['checkpoint_blobs', 'checkpoints', 'checkpoint_writes'].map((name) =>
    sql.table(name),
  )
  const { rows } = await sql<Stored>`
    select elements, bytes, refs, checkpoints, records, writes
      from (select count(data)::int as elements, sum(length(data))::int as bytes,
                   sum(cardinality(refs))::int as refs from ${blobs} where user_id = ${user}) b,
           (select count(*)::int as checkpoints, sum(length(record))::int as records
              from ${checkpoints} where user_id = ${user}) c,
           (select sum(length(data))::int as writes from ${writes} where user_id = ${user}) w`.execute(
    database.db,
  )
  return rows[0] as Stored
}

const SLOW_MS = 300_000
let server: OpenAiServer
const expected: unknown[] = []
beforeAll(async () => {
  server = await startOpenAiServer(script)
  const memory = buildTalk(server.url)(new MemorySaver())
  for (const i of talks.keys()) {
    await talk(memory, `talk ${i}`, [i])
    expected.push(createNames()(await readBack(memory, `talk ${i}`)))
  }
}, SLOW_MS)
afterAll(() => server?.close())

for (const engine of engines) {
  describe.skipIf(!engine.available)(`dialogues as the turns of a model on ${engine.name}`, () => {
    let opened: TestDatabase
    beforeAll(async () => {
      opened = await engine.open()
    })
    afterAll(() => opened?.close())

    test('end as with MemorySaver, after as many steps, with every message as it was said', {
      timeout: SLOW_MS,
    }, async () => {
      const graph = buildTalk(server.url)(opened.tb.forUser('talker').checkpointer)
      for (const [i, { messages }] of talks.entries()) {
        await talk(graph, `talk ${i}`, [i])
        const ours = await readBack(graph, `talk ${i}`)
        expect(createNames()(ours)).toStrictEqual(expected[i])
        const [, ...said] = ours.state.values.messages as BaseMessage[]
        expect(said.map(({ text }) => text)).toEqual(messages.map(textOf))
      }
    })

    test('what is stored grows with what is said, each message once', async () => {
      const graph = buildTalk(server.url)(opened.tb.forUser('growing').checkpointer)
      const measures: { said: number; stored: number }[] = []
      await talk(graph, 'long', [...talks.keys()].slice(0, 6), async () => {
        const { messages } = (await graph.getState(at('long'))).values
        const found = await measure(opened, 'growing')
        const turns = measures.length + 1
        // a turn's input is a value, too, and holds the person's message once more
        expect(found.elements).toBe(messages.length + turns)
        expect(found.refs / found.checkpoints).toBeLessThan(64)
        const { bytes, refs, records, writes } = found
        measures.push({ said: JSON.stringify(messages).length, stored: bytes + 16 * refs + records + writes })
      })
      const [half, whole] = [measures[Math.floor(measures.length / 2) - 1], measures.at(-1)]
      if (half === undefined || whole === undefined) throw new Error('too little was said')
      expect(whole.stored / whole.said).toBeLessThan(1.2 * (half.stored / half.said))
    })
  })
}
