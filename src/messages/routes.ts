import type { FastifyInstance, FastifyReply } from 'fastify'
import { type TSchema, Type } from 'typebox'
import { snakeKeys } from '../core/case.ts'
import { AnyJson, JsonObject, Nullable, Uuid } from '../core/fields.ts'
import { asHttp, fromHttp, IdPath, Instant, PageOf, pageToHttp, routeSchema } from '../core/http-shapes.ts'
import { tryParse } from '../core/validate.ts'
import type { EmbeddingService } from '../search/embed/service.ts'
import { MAX_APPEND, MessagePatch, MessageQuery, NewMessage, ROLES } from './schema.ts'
import type { MessageService } from './service.ts'

const MessageBody = Type.Object({
  id: Uuid(),
  thread_id: Uuid(),
  seq: Type.Integer({ description: 'Place in the thread, from 1.' }),
  message_id: Nullable(Type.String()),
  parent_id: Nullable(Uuid({ description: 'The message this one answers or follows; null for a root.' })),
  role: Type.Enum([...ROLES]),
  content: AnyJson(),
  text: Type.String({ description: 'Plain-text rendering of content.' }),
  tool_name: Nullable(Type.String()),
  tool_input: AnyJson(),
  tool_output: AnyJson(),
  meta: JsonObject(),
  created_at: Instant(),
})

const OneMessage = asHttp(NewMessage)
const ManyMessages = Type.Array(OneMessage, { minItems: 1, maxItems: MAX_APPEND })
const Appended = Type.Union([MessageBody, Type.Object({ items: Type.Array(MessageBody) })])

const threadPath = IdPath('Id of the thread.')
const messagePath = Type.Object({
  id: Uuid({ description: 'Id of the thread.' }),
  message: Uuid({ description: 'Id of the message.' }),
})
const tags = ['messages']
const one = { 200: MessageBody }

type ByThread = { Params: { id: string } }
type ByMessage = { Params: { id: string; message: string } }

const AppendQuery = Type.Object({
  wait: Type.Optional(
    Type.Enum(['embedding'], {
      description:
        'Answer when search by meaning finds the messages, or after 30 seconds: the header `x-embedding` says `embedded`, `pending`, or `off` where there are no embeddings.',
    }),
  ),
})
type AppendQuery = { wait?: 'embedding' }

/** `/api/threads/{id}/messages`. */
export function messageRoutes(
  app: FastifyInstance,
  messages: MessageService,
  embeddings: Pick<EmbeddingService, 'wait'>,
): void {
  app.post<ByThread & { Querystring: AppendQuery }>(
    '/api/threads/:id/messages',
    {
      schema: routeSchema({
        operationId: 'appendMessages',
        tags,
        summary: `Append a message, or an array of up to ${MAX_APPEND}`,
        description:
          'An array is stored whole or not at all and answered as `{items}` in its order. 201 when something was stored, 200 when all of it was there already, 409 when a `message_id` is there with other content.',
        params: threadPath,
        querystring: AppendQuery,
        body: Type.Union([OneMessage, ManyMessages]),
        response: { 201: Appended, 200: Appended },
      }),
      // a union's errors name neither member: the route checks the one that was meant
      validatorCompiler:
        ({ schema, httpPart }) =>
        (data) =>
          httpPart === 'body'
            ? tryBody(data)
            : tryParse(schema as TSchema, data, httpPart === 'params' ? 'path' : 'query'),
    },
    async (request, reply) => {
      const { body } = request
      const list = Array.isArray(body) ? body : [body]
      const appended = await messages.appendOrFind(
        request.scope,
        request.params.id,
        list.map(fromHttp<NewMessage>),
      )
      const items = appended.map(({ message }) => snakeKeys(message))
      if (request.query.wait === 'embedding') {
        const ids = appended.map(({ message }) => message.id)
        const { signal } = untilGone(reply)
        reply.header('x-embedding', await embeddings.wait(request.scope, ids, { signal }))
      }
      return reply
        .status(appended.some(({ created }) => created) ? 201 : 200)
        .send(Array.isArray(body) ? { items } : items[0])
    },
  )

  app.get<ByThread>(
    '/api/threads/:id/messages',
    {
      schema: routeSchema({
        operationId: 'listMessages',
        tags,
        summary: 'List messages by seq, forwards or backwards',
        description: 'With `leaf` only the path from the root to that message.',
        params: threadPath,
        querystring: asHttp(MessageQuery),
        response: { 200: PageOf(MessageBody) },
      }),
    },
    async (request) =>
      pageToHttp(
        await messages.list(request.scope, request.params.id, fromHttp<MessageQuery>(request.query)),
      ),
  )

  app.get<ByMessage>(
    '/api/threads/:id/messages/:message',
    {
      schema: routeSchema({
        operationId: 'getMessage',
        tags,
        summary: 'Read a message',
        params: messagePath,
        response: one,
      }),
    },
    async ({ scope, params }) => snakeKeys(await messages.getMessage(scope, params.id, params.message)),
  )

  app.patch<ByMessage>(
    '/api/threads/:id/messages/:message',
    {
      schema: routeSchema({
        operationId: 'updateMessage',
        tags,
        summary: 'Change meta; the rest of a message never changes',
        params: messagePath,
        body: asHttp(MessagePatch),
        response: one,
      }),
    },
    async ({ scope, params, body }) =>
      snakeKeys(await messages.update(scope, params.id, params.message, fromHttp<MessagePatch>(body))),
  )

  app.delete<ByMessage>(
    '/api/threads/:id/messages/:message',
    {
      schema: routeSchema({
        operationId: 'deleteMessage',
        tags,
        summary: 'Delete a message',
        description: 'Those that followed it follow its parent now. Answers 204 also when there is none.',
        params: messagePath,
        response: { 204: Type.Null() },
      }),
    },
    async ({ scope, params }, reply) => {
      await messages.delete(scope, params.id, params.message)
      return reply.status(204).send()
    },
  )
}

/** Aborts when the client leaves; `request.signal` does so when its body has been read. */
function untilGone(reply: FastifyReply): AbortController {
  const gone = new AbortController()
  reply.raw.once('close', () => gone.abort())
  return gone
}

function tryBody(data: unknown) {
  return Array.isArray(data) ? tryParse(ManyMessages, data, 'body') : tryParse(OneMessage, data, 'body')
}
