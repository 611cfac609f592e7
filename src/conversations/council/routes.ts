import type { FastifyInstance, FastifyRequest } from 'fastify'
import { Type } from 'typebox'
import { isThreadbaseError } from '../../core/errors.ts'
import { routeSchema } from '../../core/http-shapes.ts'
import { ConversationPath } from '../routes.ts'
import { CouncilAnswer } from '../schema.ts'
import { type Council, type CouncilEvent, NewQuestion } from './council.ts'
import { createEventStream, type EventStream } from './event-stream.ts'

const tags = ['conversations']

type Asked = { Params: { id: string }; Body: { content: string } }

/** `/api/conversations/{id}/message`: the answer in one piece, or as it is made. */
export function councilRoutes(app: FastifyInstance, council: Pick<Council, 'ask'>): void {
  app.post<Asked>(
    '/api/conversations/:id/message',
    {
      // three stages of several models each
      config: { untimed: 'work' },
      schema: routeSchema({
        operationId: 'askCouncil',
        tags,
        summary: 'Ask the council, and wait for its answer',
        description:
          'The answer is made and stored also when the client goes away. Asking an unanswered newest question again goes on where it stopped, and is counted once. 409 while a question of the conversation is answered, 429 `quota_exceeded`, 503 when no model answers.',
        params: ConversationPath,
        body: NewQuestion,
        response: { 200: CouncilAnswer },
      }),
    },
    async ({ scope, params, body }) => council.ask(scope, params.id, body.content),
  )

  app.post<Asked>(
    '/api/conversations/:id/message/stream',
    {
      config: { stream: true },
      schema: routeSchema({
        operationId: 'streamCouncil',
        tags,
        summary: 'Ask the council, and be told of each stage',
        description:
          'Server-sent events, `data: {json}` each, in ASCII: `stage1_start`, `stage1_complete` with `data`, `stage2_start`, `stage2_complete` with `data` and `metadata`, `stage3_start`, `stage3_complete` with `data`, `title_complete` with `data.title` (first message only), `complete`; or `error` with `message`. What an event tells is stored before. What can be refused is refused before the stream begins.',
        params: ConversationPath,
        body: NewQuestion,
        response: {
          200: {
            description: 'The events.',
            content: { 'text/event-stream': { schema: Type.String() } },
          },
        },
      }),
    },
    async (request, reply) => {
      const { readable } = await beginStream(council, request)
      return (
        reply
          .type('text/event-stream')
          .header('cache-control', 'no-store, no-transform')
          // nginx would collect events before it sends them
          .header('x-accel-buffering', 'no')
          .send(readable)
      )
    },
  )
}

/** The stream of an answer that is under way. @throws what is refused before anything is told */
function beginStream(council: Pick<Council, 'ask'>, request: FastifyRequest<Asked>): Promise<EventStream> {
  const { scope, params, body, log } = request
  return new Promise((resolve, reject) => {
    let events: EventStream | undefined
    const onEvent = (event: CouncilEvent) => {
      if (events === undefined) {
        events = createEventStream()
        resolve(events)
      }
      events.send(event)
    }
    council.ask(scope, params.id, body.content, { onEvent }).then(
      () => events?.end(),
      (error) => {
        if (events === undefined) return reject(error)
        const known = isThreadbaseError(error)
        if (known) log.warn({ err: error.cause ?? error }, 'the council gave no answer')
        else log.error({ err: error }, 'the council failed')
        events.send({ type: 'error', message: known ? error.message : 'internal error' })
        events.end()
      },
    )
  })
}
