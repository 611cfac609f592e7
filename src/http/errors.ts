import type { FastifyError, FastifyReply, FastifyRequest } from 'fastify'
import { type Static, Type } from 'typebox'
import { snakeKeys } from '../core/case.ts'
import { ERROR_CODES, HTTP_STATUS, ThreadbaseError } from '../core/errors.ts'

/** The body of every answer that is an error. */
export const ErrorBody = Type.Object(
  {
    error: Type.Object({
      code: Type.Enum([...ERROR_CODES, 'internal']),
      message: Type.String({ description: 'A sentence for people.' }),
      details: Type.Optional(
        Type.Record(Type.String(), Type.Unknown(), { description: 'Facts for programs.' }),
      ),
      request_id: Type.String({ description: 'Also in the header x-request-id and in the log.' }),
    }),
  },
  { $id: 'Error' },
)
export type ErrorBody = Static<typeof ErrorBody>

/** Answers with any error in the one shape. What is not ours is logged and says nothing of itself. */
export function sendError(error: unknown, request: FastifyRequest, reply: FastifyReply): FastifyReply {
  // also for what fails before any hook has run
  reply.header('x-request-id', request.id)
  const known = toThreadbaseError(error, request)
  if (known === undefined) {
    request.log.error({ err: error, route: request.routeOptions.url }, 'request failed')
    return reply.status(500).send(errorBody('internal', 'internal error', request.id))
  }
  // perhaps its body never comes: the connection cannot carry another request
  if ((error as FastifyError).code === 'FST_ERR_HANDLER_TIMEOUT') reply.header('connection', 'close')
  if (known.code === 'unavailable') {
    request.log.warn({ err: known.cause ?? known, route: request.routeOptions.url }, known.message)
    reply.header('retry-after', '1')
  }
  // RFC 6750, section 3
  if (known.code === 'unauthorized') reply.header('www-authenticate', 'Bearer realm="threadbase"')
  const retryAfterS = known.details?.retryAfterS
  if (typeof retryAfterS === 'number') reply.header('retry-after', String(retryAfterS))
  return reply
    .status(HTTP_STATUS[known.code])
    .send(errorBody(known.code, known.message, request.id, known.details && snakeKeys(known.details)))
}

export function errorBody(
  code: ErrorBody['error']['code'],
  message: string,
  requestId: string,
  details?: Record<string, unknown>,
): ErrorBody {
  return { error: { code, message, ...(details === undefined ? {} : { details }), request_id: requestId } }
}

export function routeNotFound(request: FastifyRequest): ThreadbaseError {
  const path = request.url.split('?')[0] ?? ''
  return new ThreadbaseError('not_found', `there is no ${request.method} ${path}; see /docs`)
}

function toThreadbaseError(error: unknown, request: FastifyRequest): ThreadbaseError | undefined {
  if (error instanceof ThreadbaseError) return error
  const { code, statusCode, message } = error as FastifyError
  // a path that leads out of the pages of /docs: @fastify/static refuses it with an error of its own, or of http-errors
  if (statusCode === 403 || statusCode === 404) return routeNotFound(request)
  switch (code) {
    case 'FST_ERR_CTP_BODY_TOO_LARGE':
      return new ThreadbaseError(
        'too_large',
        `the body is larger than ${request.routeOptions.bodyLimit} bytes`,
        {
          limit_bytes: request.routeOptions.bodyLimit,
        },
      )
    case 'FST_ERR_CTP_INVALID_MEDIA_TYPE':
      return new ThreadbaseError(
        'invalid_input',
        'send the body as JSON, with content-type: application/json',
      )
    case 'FST_ERR_HANDLER_TIMEOUT':
      return new ThreadbaseError(
        'unavailable',
        `there was no answer within ${request.routeOptions.handlerTimeout / 1_000} s; whether a change was made is not known`,
      )
    default:
      // Fastify's own refusals of a request: a bad URL, a content-length that does not fit, …
      if (
        typeof code === 'string' &&
        code.startsWith('FST_') &&
        statusCode !== undefined &&
        statusCode < 500
      ) {
        return new ThreadbaseError('invalid_input', message)
      }
      return undefined
  }
}
