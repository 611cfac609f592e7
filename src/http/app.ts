import type { Socket } from 'node:net'
import fastify, { type FastifyBaseLogger, type FastifyInstance, LogController } from 'fastify'
import { configRoutes } from '../configs/routes.ts'
import type { ConfigService } from '../configs/service.ts'
import { newId } from '../core/ids.ts'
import type { Database } from '../db/database.ts'
import { messageRoutes } from '../messages/routes.ts'
import type { MessageService } from '../messages/service.ts'
import { threadRoutes } from '../threads/routes.ts'
import type { ThreadService } from '../threads/service.ts'
import { registerSingleUser } from './auth.ts'
import { registerJson } from './body.ts'
import { ErrorBody, errorBody, routeNotFound, sendError } from './errors.ts'
import { healthRoutes } from './health.ts'
import { registerOpenApi } from './openapi.ts'
import { registerValidation } from './validation.ts'

export type AppServices = {
  threads: ThreadService
  messages: MessageService
  configs: ConfigService
  database: Database
  /** The schema's revision when it is complete; throws `unavailable` otherwise. */
  revision(): Promise<string>
}

export type AppOptions = { bodyLimitBytes: number; log: FastifyBaseLogger }

const REQUEST_TIMEOUT_MS = 120_000
const REQUEST_ID = /^[\w.:-]{1,100}$/

/** The HTTP API on the services; `listen` or `inject` it. Closing it lets requests in flight finish. */
export async function buildApp(services: AppServices, options: AppOptions): Promise<FastifyInstance> {
  const app: FastifyInstance = fastify({
    loggerInstance: options.log,
    // one line a request, from the hook below
    logController: new LogController({ disableRequestLogging: true }),
    bodyLimit: options.bodyLimitBytes,
    requestTimeout: REQUEST_TIMEOUT_MS,
    routerOptions: { maxParamLength: 500 },
    requestIdHeader: false,
    // what came in on an open connection before it closes is answered like the rest
    return503OnClosing: false,
    genReqId: ({ headers }) => {
      const given = headers['x-request-id']
      return typeof given === 'string' && REQUEST_ID.test(given) ? given : newId()
    },
    clientErrorHandler: answerBrokenRequest,
    frameworkErrors: (error, request, reply) => void sendError(error, request, reply),
  })
  app.setErrorHandler((error, request, reply) => sendError(error, request, reply))
  app.setNotFoundHandler((request, reply) => sendError(routeNotFound(request), request, reply))
  registerJson(app)
  registerValidation(app)
  app.addSchema(ErrorBody)
  app.addHook('onRequest', async (request, reply) => {
    reply.header('x-request-id', request.id)
  })
  app.addHook('onResponse', async (request, reply) => {
    const ms = Math.round(reply.elapsedTime)
    request.log.debug(
      { method: request.method, route: request.routeOptions.url, status: reply.statusCode, ms },
      'request',
    )
  })
  closeFinishedConnections(app)
  registerSingleUser(app)
  await registerOpenApi(app)
  healthRoutes(app, services.database, services.revision)
  threadRoutes(app, services.threads)
  messageRoutes(app, services.messages)
  configRoutes(app, services.configs)
  return app
}

/**
 * Once the app is closing, each connection ends with its answer. Left open, they would keep the server from closing
 * until their clients give them up.
 */
function closeFinishedConnections(app: FastifyInstance): void {
  let closing = false
  app.addHook('preClose', async () => {
    closing = true
  })
  app.addHook('onSend', async (_request, reply) => {
    if (closing) reply.header('connection', 'close')
  })
}

/** For what is not even HTTP: there is no request to answer through. */
function answerBrokenRequest(error: Error & { code?: string }, socket: Socket): void {
  if (error.code === 'ECONNRESET' || !socket.writable) return
  const tooLarge = error.code === 'HPE_HEADER_OVERFLOW'
  const late = error.code === 'ERR_HTTP_REQUEST_TIMEOUT'
  const status = tooLarge
    ? '431 Request Header Fields Too Large'
    : late
      ? '408 Request Timeout'
      : '400 Bad Request'
  const message = tooLarge
    ? 'the headers are too large'
    : late
      ? 'the request took too long'
      : 'this is not HTTP'
  const body = JSON.stringify(errorBody(tooLarge ? 'too_large' : 'invalid_input', message, newId()))
  socket.end(
    `HTTP/1.1 ${status}\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`,
  )
}
