import type { FastifyInstance } from 'fastify'
import { Type } from 'typebox'
import { snakeKeys } from '../../core/case.ts'
import { JsonObject, Nullable, Uuid } from '../../core/fields.ts'
import {
  asHttp,
  fromHttp,
  IdPath,
  Instant,
  NoBody,
  PageOf,
  pageToHttp,
  routeSchema,
} from '../../core/http-shapes.ts'
import { NewSession, SESSION_TYPE, SessionQuery } from '../schema.ts'
import type { SessionService } from './service.ts'

const SessionBody = Type.Object({
  id: Uuid({ description: 'Of its thread, too.' }),
  user_id: Type.String(),
  type: Type.Enum([SESSION_TYPE]),
  title: Nullable(Type.String()),
  meta: JsonObject(),
  last_seq: Type.Integer({ description: 'Highest seq given to a message so far; 0 for none.' }),
  started_at: Instant(),
  ended_at: Nullable(Instant()),
  archived_at: Nullable(Instant()),
  analysis_version: Nullable(Type.Integer({ description: 'Of its analysis; null while there is none.' })),
})

export const sessionPath = IdPath('Id of the session, which is that of its thread.')
const tags = ['sessions']

type ById = { Params: { id: string } }

/** `/api/sessions`: threads of kind `chain_analysis`. */
export function sessionListRoutes(app: FastifyInstance, sessions: SessionService): void {
  app.post(
    '/api/sessions',
    {
      schema: routeSchema({
        operationId: 'createSession',
        tags,
        summary: 'Begin a session',
        description:
          'A session is a thread of kind `chain_analysis`; its messages are at `/api/threads/{id}/messages`. With an `id` of your own the call can be repeated: 201 the first time, 200 and the session after that.',
        body: asHttp(NewSession),
        response: { 201: SessionBody, 200: SessionBody },
      }),
    },
    async (request, reply) => {
      const { session, created } = await sessions.createOrFind(
        request.scope,
        fromHttp<NewSession>(request.body),
      )
      return reply
        .status(created ? 201 : 200)
        .header('location', `/api/sessions/${session.id}`)
        .send(snakeKeys(session))
    },
  )

  app.get(
    '/api/sessions',
    {
      schema: routeSchema({
        operationId: 'listSessions',
        tags,
        summary: 'List sessions, newest start first',
        querystring: asHttp(SessionQuery),
        response: { 200: PageOf(SessionBody) },
      }),
    },
    async (request) => pageToHttp(await sessions.list(request.scope, fromHttp<SessionQuery>(request.query))),
  )

  app.get<ById>(
    '/api/sessions/:id',
    {
      schema: routeSchema({
        operationId: 'getSession',
        tags,
        summary: 'Read a session',
        params: sessionPath,
        response: { 200: SessionBody },
      }),
    },
    async ({ scope, params }) => snakeKeys(await sessions.getSession(scope, params.id)),
  )

  app.post<ById>(
    '/api/sessions/:id/end',
    {
      schema: routeSchema({
        operationId: 'endSession',
        tags,
        summary: 'Note that the session ended',
        params: sessionPath,
        body: NoBody,
        response: { 200: SessionBody },
      }),
    },
    async ({ scope, params }) => snakeKeys(await sessions.end(scope, params.id)),
  )
}
