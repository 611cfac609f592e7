import { createHash } from 'node:crypto'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { answerEmbeddings, type EmbeddingModel, type EmbeddingRequest } from './openai-embeddings.ts'

export type ChatMessage = {
  role: 'system' | 'developer' | 'user' | 'assistant' | 'tool'
  content?: string | { type: string; text?: string }[] | null
  tool_calls?: { id: string; type: 'function'; function: { name: string; arguments: string } }[]
  tool_call_id?: string
  name?: string
}

/** The body of a request, as it was sent. */
export type ChatRequest = {
  model: string
  messages: ChatMessage[]
  tools?: { type: string; function: { name: string } }[]
  stream?: boolean
  stream_options?: { include_usage?: boolean }
}

/** A turn of the model: text, calls of tools, or both; or an error under a status; or what goes wrong on the way. */
export type Answer =
  | { text?: string; calls?: { name: string; args: object }[]; cost?: number }
  | { status: number; error: string; headers?: Record<string, string> }
  | { fault: Fault }

/**
 * `hang`: nothing ever comes. `cut`: the connection ends before the answer, `cut-body`: in the middle of it. `garbage`: a page
 * of HTML. `half`: half of the JSON. `no-choices`: a completion without a message. `wrapped`: an error under 200. `redirect`:
 * to the same place under another name.
 */
export type Fault = 'hang' | 'cut' | 'cut-body' | 'garbage' | 'half' | 'no-choices' | 'wrapped' | 'redirect'

/** What the model says to a conversation. Equal conversations must get equal answers, however often they are sent. */
export type Script = (request: ChatRequest) => Answer | Promise<Answer>

export type OpenAiServer = {
  /** For a client's `baseURL`. */
  url: string
  /** Every request so far, the refused ones included. */
  requests: ChatRequest[]
  /** The credential of each of them. */
  credentials: (string | undefined)[]
  /** From now on answers by this. */
  follow(script: Script): void
  embeddings: {
    /** As for conversations. */
    requests: EmbeddingRequest[]
    credentials: (string | undefined)[]
    /** From now on is like this. */
    be(model: EmbeddingModel<Fault>): void
  }
  close(): Promise<void>
}

const MADE_AT = 1_700_000_000
const PIECE_CHARS = 12

/**
 * The chat completions of OpenAI's API on the loopback address, in one piece and streamed, and its embeddings. It keeps no
 * state: ids are made of the conversation, so that whoever sends it gets the same message.
 */
export async function startOpenAiServer(script: Script = inTurn([])): Promise<OpenAiServer> {
  const requests: ChatRequest[] = []
  const credentials: (string | undefined)[] = []
  const embeddings = { requests: [] as EmbeddingRequest[], credentials: [] as (string | undefined)[] }
  let current = script
  let model: EmbeddingModel<Fault> = {}
  const server = createServer((request, response) => {
    if (request.method === 'POST' && request.url === '/v1/embeddings') {
      const answer = (body: EmbeddingRequest) => {
        embeddings.requests.push(body)
        embeddings.credentials.push(request.headers.authorization)
        return answerEmbeddings(body, model)
      }
      readBody(request).then(
        (body) => send(response, answer(body as EmbeddingRequest)),
        (error) => send(response, { status: 500, error: String(error) }),
      )
      return
    }
    const received = (chat: ChatRequest) => {
      requests.push(chat)
      credentials.push(request.headers.authorization)
    }
    answerTo(request, received, (chat) => current(chat)).then(
      (reply) => send(response, reply),
      (error) => send(response, { status: 500, error: String(error) }),
    )
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/v1`,
    requests,
    credentials,
    follow: (next) => {
      current = next
    },
    embeddings: {
      ...embeddings,
      be: (next) => {
        model = next
      },
    },
    close: async () => {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

/** The answers in their order: the first while the conversation has no turn of the model, and so on. */
export function inTurn(answers: readonly Answer[]): Script {
  return ({ messages }) => {
    const turn = messages.filter(({ role }) => role === 'assistant').length
    return answers[turn] ?? { status: 400, error: `the script has no turn ${turn + 1}` }
  }
}

/** The text of a message, whichever way it was written. */
export function textOf({ content }: ChatMessage): string {
  if (typeof content === 'string') return content
  return (content ?? []).map(({ text = '' }) => text).join('')
}

type Failure = { status: number; error: string; headers?: Record<string, string> }
type Completion = { request: ChatRequest; id: string; text: string | null; calls: ToolCall[]; usage: object }
type ToolCall = NonNullable<ChatMessage['tool_calls']>[number]

async function answerTo(
  incoming: IncomingMessage,
  received: (request: ChatRequest) => void,
  script: Script,
): Promise<Failure | Completion | { fault: Fault }> {
  if (incoming.method !== 'POST' || incoming.url !== '/v1/chat/completions') {
    return { status: 404, error: `there is no ${incoming.method} ${incoming.url}` }
  }
  const request = (await readBody(incoming)) as ChatRequest
  received(request)
  const problem = findProblem(request)
  if (problem !== undefined) return { status: 400, error: problem }
  const answer = await script(request)
  return 'status' in answer || 'fault' in answer ? answer : toCompletion(request, answer)
}

async function readBody(incoming: IncomingMessage): Promise<unknown> {
  const chunks: Buffer[] = []
  for await (const chunk of incoming) chunks.push(chunk)
  return JSON.parse(Buffer.concat(chunks).toString())
}

/** What the real API refuses, too: a call without its result, a result without its call. */
function findProblem({ model, messages }: ChatRequest): string | undefined {
  if (typeof model !== 'string' || model === '') return 'model is missing'
  if (!Array.isArray(messages) || messages.length === 0) return 'messages is empty'
  let open = new Set<string>()
  for (const [i, { role, tool_calls, tool_call_id }] of messages.entries()) {
    if (role === 'tool') {
      if (!open.delete(tool_call_id ?? '')) return `messages.${i} answers no call: ${tool_call_id}`
      continue
    }
    if (open.size > 0) return `messages.${i} comes before the results of ${[...open].join()}`
    open = new Set(tool_calls?.map(({ id }) => id))
  }
  return open.size > 0 ? `the results of ${[...open].join()} are missing` : undefined
}

type Turn = Exclude<Answer, Failure | { fault: Fault }>

function toCompletion(request: ChatRequest, answer: Turn): Completion {
  const { text = null, calls = [], cost } = answer
  const hash = createHash('sha256')
    .update(JSON.stringify([request.messages, answer]))
    .digest('hex')
    .slice(0, 24)
  const prompt = request.messages.reduce((sum, message) => sum + countTokens(textOf(message)), 0)
  const completion = countTokens(text ?? '') + calls.length
  return {
    request,
    id: `chatcmpl-${hash}`,
    text,
    calls: calls.map(({ name, args }, i) => ({
      id: `call_${hash}_${i}`,
      type: 'function',
      function: { name, arguments: JSON.stringify(args) },
    })),
    usage: {
      prompt_tokens: prompt,
      completion_tokens: completion,
      total_tokens: prompt + completion,
      ...(cost === undefined ? {} : { cost }),
      prompt_tokens_details: { cached_tokens: 0, audio_tokens: 0 },
      completion_tokens_details: { reasoning_tokens: 0, audio_tokens: 0 },
    },
  }
}

const countTokens = (text: string) => text.split(/\s+/).filter((word) => word !== '').length

type Reply = Failure | Completion | { fault: Fault } | { json: object }

function send(response: ServerResponse, reply: Reply): void {
  if ('fault' in reply) {
    goWrong(response, reply.fault)
  } else if ('json' in reply) {
    response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(reply.json))
  } else if ('status' in reply) {
    const type = reply.status < 500 ? 'invalid_request_error' : 'server_error'
    response.writeHead(reply.status, { 'content-type': 'application/json', ...reply.headers })
    response.end(JSON.stringify({ error: { message: reply.error, type, param: null, code: null } }))
  } else if (reply.request.stream === true) {
    response.writeHead(200, { 'content-type': 'text/event-stream' })
    for (const chunk of toChunks(reply)) response.write(`data: ${JSON.stringify(chunk)}\n\n`)
    response.end('data: [DONE]\n\n')
  } else {
    response.writeHead(200, { 'content-type': 'application/json' })
    response.end(JSON.stringify(toWhole(reply)))
  }
}

function goWrong(response: ServerResponse, fault: Fault): void {
  const json = { 'content-type': 'application/json' }
  switch (fault) {
    case 'hang':
      return
    case 'cut':
      response.destroy()
      return
    case 'cut-body':
      response.writeHead(200, { ...json, 'content-length': '1000' })
      response.write('{"choices": [', () => response.destroy())
      return
    case 'garbage':
      response.writeHead(200, { 'content-type': 'text/html' }).end('<html>Welcome</html>')
      return
    case 'half':
      response.writeHead(200, json).end('{"choices": [')
      return
    case 'no-choices':
      response.writeHead(200, json).end('{"object": "chat.completion", "choices": []}')
      return
    case 'wrapped':
      response.writeHead(200, json).end('{"error": {"code": 502, "message": "behind it"}}')
      return
    case 'redirect':
      response.writeHead(307, {
        location: `http://localhost:${response.socket?.localPort}${response.req.url}`,
      })
      response.end()
  }
}

const reasonOf = ({ calls }: Completion) => (calls.length > 0 ? 'tool_calls' : 'stop')

function toWhole(completion: Completion): object {
  const { request, id, text, calls, usage } = completion
  const message = {
    role: 'assistant',
    content: text,
    refusal: null,
    ...(calls.length > 0 ? { tool_calls: calls } : {}),
  }
  const choice = { index: 0, message, logprobs: null, finish_reason: reasonOf(completion) }
  return { id, object: 'chat.completion', created: MADE_AT, model: request.model, choices: [choice], usage }
}

function toChunks(completion: Completion): object[] {
  const { request, id, text, calls, usage } = completion
  const head = { id, object: 'chat.completion.chunk', created: MADE_AT, model: request.model }
  const deltas: object[] = [
    { role: 'assistant', content: text === null ? null : '' },
    ...cutText(text ?? '').map((content) => ({ content })),
    ...calls.flatMap(({ function: { name, arguments: args }, ...call }, index) => [
      { tool_calls: [{ index, ...call, function: { name, arguments: '' } }] },
      ...cutText(args).map((piece) => ({ tool_calls: [{ index, function: { arguments: piece } }] })),
    ]),
  ]
  const chunks: object[] = [...deltas, {}].map((delta, i) => ({
    ...head,
    choices: [{ index: 0, delta, finish_reason: i < deltas.length ? null : reasonOf(completion) }],
  }))
  if (request.stream_options?.include_usage === true) chunks.push({ ...head, choices: [], usage })
  return chunks
}

function cutText(text: string): string[] {
  const pieces: string[] = []
  const characters = [...text]
  for (let i = 0; i < characters.length; i += PIECE_CHARS) {
    pieces.push(characters.slice(i, i + PIECE_CHARS).join(''))
  }
  return pieces
}
