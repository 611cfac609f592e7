import { create as contentDisposition } from 'content-disposition'
import type { FastifyInstance } from 'fastify'
import { Type } from 'typebox'
import { ThreadbaseError } from '../core/errors.ts'
import { closed } from '../core/fields.ts'
import { routeSchema } from '../core/http-shapes.ts'
import {
  CONVERSATION_FORMATS,
  Conversation,
  type ConversationFormat,
  ConversationHit,
  ConversationSummary,
  ConversationTitle,
} from './schema.ts'
import type { ConversationStore } from './service.ts'

const tags = ['conversations']
const MAX_LIST = 1_000

/** Of one conversation. The store says which ids there can be: not all of them are UUIDs. */
export const ConversationPath = Type.Object({ id: Type.String({ description: 'Id of the conversation.' }) })
const ExportPath = Type.Object({
  ...ConversationPath.properties,
  format: Type.Enum([...CONVERSATION_FORMATS]),
})

const ListQuery = Type.Object(
  {
    limit: Type.Optional(
      Type.Integer({ minimum: 1, maximum: MAX_LIST, description: 'How many. Default: all.' }),
    ),
    after: Type.Optional(
      Type.String({ minLength: 1, maxLength: 255, description: '`id` of the last one of the page before.' }),
    ),
    after_created_at: Type.Optional(
      Type.String({
        minLength: 1,
        maxLength: 100,
        description: '`created_at` of the same; both or neither.',
      }),
    ),
  },
  closed,
)
type ListQuery = { limit?: number; after?: string; after_created_at?: string }

const SearchQuery = Type.Object(
  {
    q: Type.String({ minLength: 1, maxLength: 500, description: 'Text to look for, in any case.' }),
    limit: Type.Optional(Type.Integer({ minimum: 1, maximum: 200, default: 50 })),
  },
  closed,
)

const NewConversation = Type.Object(
  { id: Type.Optional(Type.String({ description: 'Default: a new UUID.' })) },
  closed,
)
const ConversationPatch = Type.Object({ title: ConversationTitle }, closed)

const FILES = {
  markdown: { type: 'text/markdown; charset=utf-8', extension: 'md' },
  json: { type: 'application/json; charset=utf-8', extension: 'json' },
} as const satisfies Record<ConversationFormat, unknown>

type ById = { Params: { id: string } }

/**
 * `/api/conversations`, as front ends of councils call it: arrays and objects as they are, without pages around them.
 */
export function conversationRoutes(app: FastifyInstance, conversations: ConversationStore): void {
  readingRoutes(app, conversations)
  searchRoutes(app, conversations)

  app.post<{ Body: { id?: string } }>(
    '/api/conversations',
    {
      schema: routeSchema({
        operationId: 'createConversation',
        tags,
        summary: 'Begin a conversation with the council',
        body: NewConversation,
        response: { 200: Conversation },
      }),
    },
    async ({ scope, body }) => conversations.createConversation(scope, body.id),
  )

  app.patch<ById & { Body: { title: string } }>(
    '/api/conversations/:id',
    {
      schema: routeSchema({
        operationId: 'updateConversation',
        tags,
        summary: 'Change the title',
        params: ConversationPath,
        body: ConversationPatch,
        response: { 200: Conversation },
      }),
    },
    async ({ scope, params, body }) => {
      await conversations.updateConversationTitle(scope, params.id, body.title)
      return conversations.getConversation(scope, params.id)
    },
  )

  app.delete<ById>(
    '/api/conversations/:id',
    {
      schema: routeSchema({
        operationId: 'deleteConversation',
        tags,
        summary: 'Delete a conversation',
        description: 'Answers 204 also when there is none.',
        params: ConversationPath,
        response: { 204: Type.Null() },
      }),
    },
    async ({ scope, params }, reply) => {
      await conversations.deleteConversation(scope, params.id)
      return reply.status(204).send()
    },
  )
}

function readingRoutes(app: FastifyInstance, conversations: ConversationStore): void {
  app.get<{ Querystring: ListQuery }>(
    '/api/conversations',
    {
      schema: routeSchema({
        operationId: 'listConversations',
        tags,
        summary: 'List conversations with the council, newest first',
        querystring: ListQuery,
        response: { 200: Type.Array(ConversationSummary) },
      }),
    },
    async ({ scope, query: { limit, after, after_created_at: createdAt } }) => {
      if ((after === undefined) !== (createdAt === undefined))
        throw new ThreadbaseError(
          'invalid_input',
          'query must have both after and after_created_at, or neither',
        )
      const behind =
        after === undefined || createdAt === undefined ? {} : { after: { id: after, created_at: createdAt } }
      return conversations.listConversations(scope, { ...(limit === undefined ? {} : { limit }), ...behind })
    },
  )

  app.get<ById>(
    '/api/conversations/:id',
    {
      schema: routeSchema({
        operationId: 'getConversation',
        tags,
        summary: 'Read a whole conversation',
        params: ConversationPath,
        response: { 200: Conversation },
      }),
    },
    async ({ scope, params }) => conversations.getConversation(scope, params.id),
  )

  app.get<{ Params: { id: string; format: ConversationFormat } }>(
    '/api/conversations/:id/export/:format',
    {
      // it would read everything to send nothing
      exposeHeadRoute: false,
      schema: routeSchema({
        operationId: 'exportConversation',
        tags,
        summary: 'Download a conversation as a file',
        params: ExportPath,
        response: {
          200: {
            description: 'The file.',
            content: {
              'application/json': { schema: Conversation },
              'text/markdown': { schema: Type.String() },
            },
          },
        },
      }),
    },
    async ({ scope, params: { id, format } }, reply) => {
      const { type, extension } = FILES[format]
      const text = await conversations.export(scope, id, format)
      return reply
        .type(type)
        .header('content-disposition', contentDisposition(`conversation-${id}.${extension}`))
        .send(text)
    },
  )
}

function searchRoutes(app: FastifyInstance, conversations: ConversationStore): void {
  app.get<{ Querystring: { q: string; limit?: number } }>(
    '/api/conversations/search',
    {
      schema: routeSchema({
        operationId: 'searchConversations',
        tags,
        summary: 'Find conversations by a text in their title, questions or answers',
        querystring: SearchQuery,
        response: { 200: Type.Array(ConversationHit) },
      }),
    },
    async ({ scope, query: { q, limit } }) =>
      conversations.search(scope, q, limit === undefined ? {} : { limit }),
  )
}
