import type { FastifyInstance } from 'fastify'
import { Type } from 'typebox'
import { snakeKeys } from '../core/case.ts'
import { JsonObject, Nullable, Uuid } from '../core/fields.ts'
import {
  asHttp,
  fromHttp,
  IdPath,
  Instant,
  NoBody,
  PageOf,
  pageToHttp,
  routeSchema,
} from '../core/http-shapes.ts'
import {
  ForkOptions,
  NewThread,
  ThreadPatch as Patch,
  ThreadKind,
  type ThreadPatch,
  ThreadQuery,
} from './schema.ts'
import type { ThreadService } from './service.ts'

const ThreadBody = Type.Object({
  id: Uuid(),
  user_id: Type.String(),
  title: Nullable(Type.String()),
  kind: ThreadKind,
  meta: JsonObject(),
  last_seq: Type.Integer({ description: 'Highest seq given to a message so far; 0 for none.' }),
  forked_from: Nullable(Uuid()),
  created_at: Instant(),
  updated_at: Instant('Of the thread or its newest message, whichever is later.'),
  archived_at: Nullable(Instant()),
  ended_at: Nullable(Instant()),
})

const TitleBody = Type.Object(
  { title: Patch.properties.title },
  { additionalProperties: false, required: ['title'] },
)

const path = IdPath('Id of the thread.')
const tags = ['threads']
const one = { 200: ThreadBody }

type ById = { Params: { id: string } }

/** `/api/threads` and what is done to a thread as a whole. */
export function threadRoutes(app: FastifyInstance, threads: ThreadService): void {
  app.post(
    '/api/threads',
    {
      schema: routeSchema({
        operationId: 'createThread',
        tags,
        summary: 'Make a thread',
        description:
          'With an `id` of your own the call can be repeated: 201 the first time, 200 and the thread after that.',
        body: asHttp(NewThread),
        response: { 201: ThreadBody, 200: ThreadBody },
      }),
    },
    async (request, reply) => {
      const { thread, created } = await threads.createOrFind(request.scope, fromHttp<NewThread>(request.body))
      return reply
        .status(created ? 201 : 200)
        .header('location', `/api/threads/${thread.id}`)
        .send(snakeKeys(thread))
    },
  )

  app.get(
    '/api/threads',
    {
      schema: routeSchema({
        operationId: 'listThreads',
        tags,
        summary: 'List threads, newest update first',
        querystring: asHttp(ThreadQuery),
        response: { 200: PageOf(ThreadBody) },
      }),
    },
    async (request) => pageToHttp(await threads.list(request.scope, fromHttp<ThreadQuery>(request.query))),
  )

  app.get<ById>(
    '/api/threads/:id',
    {
      schema: routeSchema({
        operationId: 'getThread',
        tags,
        summary: 'Read a thread',
        params: path,
        response: one,
      }),
    },
    async (request) => snakeKeys(await threads.getThread(request.scope, request.params.id)),
  )

  app.patch<ById>(
    '/api/threads/:id',
    {
      schema: routeSchema({
        operationId: 'updateThread',
        tags,
        summary: 'Change title or meta',
        params: path,
        body: asHttp(Patch),
        response: one,
      }),
    },
    async (request) =>
      snakeKeys(await threads.update(request.scope, request.params.id, fromHttp<ThreadPatch>(request.body))),
  )

  app.patch<ById>(
    '/api/threads/:id/title',
    {
      schema: routeSchema({
        operationId: 'setThreadTitle',
        tags,
        summary: 'Change the title',
        params: path,
        body: TitleBody,
        response: one,
      }),
    },
    async (request) =>
      snakeKeys(await threads.update(request.scope, request.params.id, fromHttp<ThreadPatch>(request.body))),
  )

  markRoute('archive', 'Hide the thread from lists')
  markRoute('unarchive', 'Show the thread in lists again')
  markRoute('end', 'Note that the session ended')

  app.delete<ById>(
    '/api/threads/:id',
    {
      schema: routeSchema({
        operationId: 'deleteThread',
        tags,
        summary: 'Delete a thread and everything in it',
        description: 'Answers 204 also when there is none.',
        params: path,
        response: { 204: Type.Null() },
      }),
    },
    async (request, reply) => {
      await threads.delete(request.scope, request.params.id)
      return reply.status(204).send()
    },
  )

  app.post<ById>(
    '/api/threads/:id/fork',
    {
      schema: routeSchema({
        operationId: 'forkThread',
        tags,
        summary: 'Copy a thread up to a message',
        params: path,
        body: asHttp(ForkOptions),
        response: { 201: ThreadBody },
      }),
    },
    async (request, reply) => {
      const fork = await threads.fork(request.scope, request.params.id, fromHttp<ForkOptions>(request.body))
      return reply.status(201).header('location', `/api/threads/${fork.id}`).send(snakeKeys(fork))
    },
  )

  function markRoute(name: 'archive' | 'unarchive' | 'end', summary: string): void {
    app.post<ById>(
      `/api/threads/:id/${name}`,
      {
        schema: routeSchema({
          operationId: `${name}Thread`,
          tags,
          summary,
          params: path,
          body: NoBody,
          response: one,
        }),
      },
      async (request) => snakeKeys(await threads[name](request.scope, request.params.id)),
    )
  }
}
